//! The overview on a terminal.

use std::time::Duration;

use console::Asset;
use console::overview::{Overview, Second, Shard};
use ratatui::DefaultTerminal;
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Stylize;
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph, Sparkline};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::source::Source;
use super::{BEAT, now_ms};
use crate::exit::Failure;

/// How soon a key is noticed.
const GLANCE: Duration = Duration::from_millis(50);
/// Reasons that are listed.
const REASONS_MAX: usize = 8;
/// What stands where nobody tells.
const UNTOLD: &str = "-";

/// Draws until somebody ends it.
pub(super) async fn watch(source: Source, overview: Overview, assets: &[Asset]) -> Result<(), Failure> {
    // Gives the terminal back after a panic, too.
    let terminal = ratatui::try_init()?;
    let ended = keep_drawing(terminal, source, overview, assets).await;
    ratatui::restore();
    ended
}

async fn keep_drawing(
    mut terminal: DefaultTerminal,
    mut source: Source,
    mut overview: Overview,
    assets: &[Asset],
) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (mut beats, mut glances) = (interval(BEAT), interval(GLANCE));
    beats.set_missed_tick_behavior(MissedTickBehavior::Skip);
    glances.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut heard = Ok(Instant::now());
    let (name, tells_all) = (source.to_string(), source.tells_all());
    let view = |heard: &Result<Instant, String>| View {
        name: &name,
        tells_all,
        assets,
        trouble: heard.as_ref().err().cloned(),
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
            _ = beats.tick() => {
                match source.read().await {
                    Ok(reading) => {
                        overview.take(now_ms(), reading);
                        heard = Ok(Instant::now());
                    }
                    // An engine that starts again is found again.
                    Err(failure) => heard = Err(failure.to_string()),
                }
                terminal.draw(|frame| draw(frame, &view(&heard), &overview))?;
            }
            _ = glances.tick() => {
                while event::poll(Duration::ZERO)? {
                    match event::read()? {
                        Event::Resize(..) => {
                            terminal.draw(|frame| draw(frame, &view(&heard), &overview))?;
                        }
                        other if ends(&other) => return Ok(()),
                        _ => {}
                    }
                }
            }
        }
    }
}

/// True for `q`, Escape and an interrupt, which a terminal that is drawn on tells as a key.
fn ends(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) || is_interrupt
}

/// What is the same of every second.
struct View<'a> {
    /// Whose figures they are.
    name: &'a str,
    /// What is not there is not, rather than not told.
    tells_all: bool,
    assets: &'a [Asset],
    /// Why there are no newer ones.
    trouble: Option<String>,
}

fn draw(frame: &mut Frame<'_>, view: &View<'_>, overview: &Overview) {
    let View { name, tells_all, assets, trouble } = view;
    let shards = u16::try_from(overview.standing().shards.len()).unwrap_or(u16::MAX).saturating_add(3);
    let [head, figures, plots, shard_area] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(11),
        Constraint::Min(4),
        Constraint::Length(shards.min(12)),
    ])
    .areas(frame.area());
    let state = match trouble {
        Some(trouble) => Line::from(trouble.clone()).red().bold(),
        None => Line::from(format!("{name}  {}  (q ends)", state_word(overview))).bold(),
    };
    frame.render_widget(Paragraph::new(state), head);
    let [numbers, reasons] =
        Layout::horizontal([Constraint::Min(44), Constraint::Percentage(40)]).areas(figures);
    let numbers_text: Vec<Line<'_>> =
        numbers_of(*tells_all, overview, assets).into_iter().map(Line::from).collect();
    frame.render_widget(Paragraph::new(numbers_text).block(Block::bordered().title(" now ")), numbers);
    let reasons_text: Vec<Line<'_>> = reasons_of(overview).into_iter().map(Line::from).collect();
    let title = " not done, by reason, last 15 min ";
    frame.render_widget(Paragraph::new(reasons_text).block(Block::bordered().title(title)), reasons);
    draw_plots(frame, plots, overview);
    let shards_text: Vec<Line<'_>> = shards_of(*tells_all, overview).into_iter().map(Line::from).collect();
    frame.render_widget(Paragraph::new(shards_text).block(Block::bordered().title(" shards ")), shard_area);
}

/// A title, and what is drawn of each second under it.
type Plot = (String, fn(&Second) -> u64);

fn draw_plots(frame: &mut Frame<'_>, area: Rect, overview: &Overview) {
    let none = Second::default();
    let now = overview.newest().unwrap_or(&none);
    let exposure = now.exposure_bps.map_or("-".to_owned(), |bps| format!("{}.{:02} %", bps / 100, bps % 100));
    let plots: [Plot; 4] = [
        (" requests a second ".to_owned(), rate),
        (format!(" p50 {} ", micros(now.p50_us)), |second| second.p50_us.unwrap_or(0)),
        (format!(" p99 {} ", micros(now.p99_us)), |second| second.p99_us.unwrap_or(0)),
        (format!(" exposure {exposure} "), |second| second.exposure_bps.unwrap_or(0)),
    ];
    let areas = Layout::horizontal([
        Constraint::Fill(2),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Fill(1),
    ])
    .areas::<4>(area);
    for ((title, of), area) in plots.into_iter().zip(areas) {
        let width = usize::from(area.width.saturating_sub(2));
        let values: Vec<u64> = overview.seconds().map(of).collect();
        let last = &values[values.len().saturating_sub(width)..];
        frame.render_widget(Sparkline::default().data(last).block(Block::bordered().title(title)), area);
    }
}

/// All of it in lines, for whoever has no terminal.
pub(super) fn lines(tells_all: bool, overview: &Overview, assets: &[Asset]) -> Vec<String> {
    let mut lines = vec![state_word(overview).to_owned()];
    lines.extend(numbers_of(tells_all, overview, assets));
    lines.extend(reasons_of(overview).into_iter().map(|line| format!("not done  {line}")));
    lines.extend(shards_of(tells_all, overview));
    lines
}

const fn state_word(overview: &Overview) -> &'static str {
    if overview.standing().ready { "serving" } else { "NOT SERVING" }
}

const fn rate(second: &Second) -> u64 {
    second.done + second.declined + second.refused
}

fn numbers_of(tells_all: bool, overview: &Overview, assets: &[Asset]) -> Vec<String> {
    let standing = overview.standing();
    let none = Second::default();
    let second = overview.newest().unwrap_or(&none);
    let told = |number: u64| if tells_all { number.to_string() } else { UNTOLD.to_owned() };
    let mut lines = vec![
        format!(
            "requests  {}/s  done {}  declined {}  not admitted {}",
            rate(second),
            second.done,
            second.declined,
            told(second.refused)
        ),
        format!("answered  p50 {}  p99 {}", micros(second.p50_us), micros(second.p99_us)),
        format!("disk      p99 {}", micros(second.write_p99_us)),
        format!(
            "locks     open {}  expired {}/s  under way {}",
            told(standing.open_locks),
            second.expired,
            told(standing.in_flight)
        ),
    ];
    if !tells_all {
        lines.push("-         is not told over the wire, but by `serve --admin` and the console".to_owned());
    }
    for money in &standing.money {
        let asset = assets.iter().find(|asset| asset.id.0 == money.asset);
        let (name, decimals) = asset.map_or_else(
            || (format!("asset {}", money.asset), 0),
            |asset| (asset.name.clone(), asset.decimals),
        );
        let part = |state: &str| whole(money.states.get(state).map_or("0", String::as_str), decimals);
        lines.push(format!(
            "{name:<9} free {}  held {}  captured {}  pending {}  owed {}",
            part("free"),
            part("held"),
            part("captured"),
            part("pending"),
            part("owed")
        ));
        for state in ["exposure", "deficit"] {
            if money.states.get(state).is_some_and(|amount| amount != "0") {
                lines.push(format!("{name:<9} {} {}", state.to_uppercase(), part(state)));
            }
        }
        if money.frozen > 0 {
            lines.push(format!(
                "{name:<9} {} of {} partitions are frozen",
                money.frozen,
                money.open + money.frozen
            ));
        }
        if money.unreconciled > 0 {
            lines.push(format!(
                "{name:<9} {} of {} partitions are NOT RECONCILED since a loss",
                money.unreconciled,
                money.open + money.frozen
            ));
        }
    }
    if standing.violations > 0 {
        lines.push("MONEY DOES NOT ADD UP: stop taking payments and run `surety verify`".to_owned());
    }
    lines
}

fn reasons_of(overview: &Overview) -> Vec<String> {
    overview.reasons().iter().take(REASONS_MAX).map(|(code, count)| format!("{count:>9} {code}")).collect()
}

fn shards_of(tells_all: bool, overview: &Overview) -> Vec<String> {
    let told = |number: u64| if tells_all { number.to_string() } else { UNTOLD.to_owned() };
    let head = format!(
        "{:<6}{:>9}{:>10}{:>10}{:>12}{:>9}{:>11}  {}",
        "shard", "req/s", "p99", "disk p99", "record", "unsynced", "open locks", "state"
    );
    let line = |shard: &Shard| {
        format!(
            "{:<6}{:>9}{:>10}{:>10}{:>12}{:>9}{:>11}  {}",
            shard.shard,
            shard.rate,
            micros(shard.p99_us),
            micros(shard.write_p99_us),
            if tells_all { shard.appended } else { shard.synced },
            told(shard.appended.saturating_sub(shard.synced)),
            told(shard.open_locks),
            if tells_all { health(shard) } else { UNTOLD }
        )
    };
    std::iter::once(head).chain(overview.standing().shards.iter().map(line)).collect()
}

fn health(shard: &Shard) -> &'static str {
    if shard.violations > 0 {
        "MONEY DOES NOT ADD UP"
    } else if shard.storage_low {
        "DISK NEARLY FULL"
    } else if shard.archive_failures > 0 {
        "archive fails"
    } else {
        "healthy"
    }
}

fn micros(micros: Option<u64>) -> String {
    match micros {
        None => "-".to_owned(),
        Some(micros) if micros < 10_000 => format!("{micros} us"),
        Some(micros) => format!("{} ms", micros / 1000),
    }
}

/// The whole units of an amount in base units, cut rather than rounded; `<1` where that is nothing of something.
fn whole(amount: &str, decimals: u8) -> String {
    let cut = amount.len().checked_sub(usize::from(decimals)).filter(|digits| *digits > 0);
    match cut {
        Some(digits) => amount[..digits].to_owned(),
        None if amount == "0" => "0".to_owned(),
        None => "<1".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use console::reading::Reading;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn overview() -> Overview {
        let reading = |count: u64| {
            Reading::parse(&format!(
                "surety_ready 1\nsurety_requests_total{{shard=\"0\",op=\"lock\",code=\"APPROVED\"}} {count}\n\
                 surety_requests_total{{shard=\"0\",op=\"lock\",code=\"VELOCITY\"}} {count}\n\
                 surety_collateral_base_units{{shard=\"0\",asset=\"1\",state=\"free\"}} 7500000000000000000\n\
                 surety_collateral_base_units{{shard=\"0\",asset=\"1\",state=\"exposure\"}} 1\n\
                 surety_partitions{{shard=\"0\",asset=\"1\",state=\"open\"}} 5\n\
                 surety_partitions_unreconciled{{shard=\"0\",asset=\"1\"}} 3\n\
                 surety_storage_low{{shard=\"0\"}} 1\n"
            ))
        };
        let mut overview = Overview::default();
        overview.take(1000, reading(0));
        overview.take(2000, reading(40));
        overview
    }

    #[test]
    fn a_second_is_told_in_lines() {
        let lines = lines(true, &overview(), &[Asset::amp()]).join("\n");
        for told in [
            "serving",
            "80/s",
            "done 40",
            "declined 40",
            "AMP       free 7 ",
            "EXPOSURE <1",
            "AMP       3 of 5 partitions are NOT RECONCILED since a loss",
            "40 VELOCITY",
            "DISK NEARLY FULL",
        ] {
            assert!(lines.contains(told), "{told}:\n{lines}");
        }
    }

    #[test]
    fn what_nobody_tells_is_no_number() {
        let lines = lines(false, &overview(), &[Asset::amp()]).join("\n");
        for told in
            ["80/s", "not admitted -", "open -", "under way -", "not told over the wire", "EXPOSURE <1"]
        {
            assert!(lines.contains(told), "{told}:\n{lines}");
        }
        assert!(!lines.contains("DISK NEARLY FULL") && !lines.contains("healthy"), "{lines}");
    }

    #[test]
    fn it_draws_on_terminals_of_any_size() {
        for (width, height) in [(1, 1), (40, 10), (80, 24), (200, 60)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            let assets = [Asset::amp()];
            let view = View { name: "127.0.0.1:1", tells_all: true, assets: &assets, trouble: None };
            let overview = overview();
            terminal.draw(|frame| draw(frame, &view, &overview)).unwrap();
            let drawn = terminal.backend().to_string();
            assert!(
                width < 80
                    || ["VELOCITY", "requests a second", " p50 ", " p99 ", " exposure "]
                        .iter()
                        .all(|told| drawn.contains(told)),
                "{drawn}"
            );
            let gone = View { tells_all: false, assets: &[], trouble: Some("gone".to_owned()), ..view };
            terminal.draw(|frame| draw(frame, &gone, &overview)).unwrap();
        }
    }

    #[test]
    fn amounts_are_cut() {
        for (amount, decimals, expect) in
            [("0", 18, "0"), ("1", 18, "<1"), ("1999", 3, "1"), ("999", 3, "<1"), ("42", 0, "42")]
        {
            assert_eq!(whole(amount, decimals), expect);
        }
    }
}

//! A run while it lasts, on the whole terminal. Drawn at most ten times a second by a thread of its own, out of what the counting
//! thread tells once a second: nothing that is measured waits for it.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, Stderr, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use loadtest::{Interval, OnSecond, Progress, Report};
use parking_lot::ReentrantMutex;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::symbols::Marker;
use ratatui::text::Line;
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType, Paragraph, Sparkline};
use ratatui::{Frame, Terminal};
use tokio::sync::watch;

/// Between two pictures.
const FRAME: Duration = Duration::from_millis(100);
/// Seconds that the plots reach back.
const SECONDS_MAX: usize = 300;
/// Reasons of declines that are listed.
const REASONS_MAX: usize = 8;

/// How long a terminal that takes nothing may keep it from being given back.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether the terminal is ours. Who draws holds it, so that no picture comes after it was given back; a panic while drawing gives it
/// back all the same.
struct Hold(ReentrantMutex<Cell<bool>>);

static TERMINAL: Hold = Hold(ReentrantMutex::new(Cell::new(false)));

impl Hold {
    fn take(&self) {
        self.0.lock().set(true);
    }

    /// Draws, unless the terminal was given back: then none.
    fn draw<T>(&self, draw: impl FnOnce() -> T) -> Option<T> {
        let ours = self.0.lock();
        ours.get().then(draw)
    }

    /// Gives it back, once.
    fn give_back(&self, restore: impl FnOnce()) {
        let ours = self.0.try_lock_for(PATIENCE);
        if ours.is_none_or(|ours| ours.replace(false)) {
            restore();
        }
    }
}

/// What stands above the figures.
#[derive(Clone, Debug)]
pub(super) struct Title {
    /// Which payments, over what, and how they arrive.
    pub(super) what: String,
    /// How long they are begun.
    pub(super) duration: Duration,
}

/// What is shown.
#[derive(Clone, Debug, Default)]
struct Shown {
    latest: Option<Progress>,
    seconds: VecDeque<Interval>,
}

/// The view. The terminal is as it was once this is gone.
pub(super) struct View {
    shown: Arc<Mutex<Shown>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl View {
    /// Takes the terminal. `stop` is told when somebody wants the run to end.
    ///
    /// # Errors
    /// If there is no terminal to take.
    pub(super) fn open(title: Title, stop: watch::Sender<bool>) -> io::Result<Self> {
        restore_on_panic();
        restore_on_hangup();
        TERMINAL.take();
        if let Err(error) = enable_raw_mode().and_then(|()| execute!(stderr(), EnterAlternateScreen)) {
            give_back();
            return Err(error);
        }
        let mut terminal = match Terminal::new(CrosstermBackend::new(stderr())) {
            Ok(terminal) => terminal,
            Err(error) => {
                give_back();
                return Err(error);
            }
        };
        let (shown, is_over) = (Arc::<Mutex<Shown>>::default(), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (shown, is_over) = (shown.clone(), is_over.clone());
            std::thread::spawn(move || {
                keep_drawing(&mut terminal, &title, &shown, &is_over, &stop);
                give_back();
            })
        };
        Ok(Self { shown, is_over, thread: Some(thread) })
    }

    /// What has to be told of each second.
    pub(super) fn on_second(&self) -> OnSecond {
        let shown = self.shown.clone();
        OnSecond::new(move |progress| lock(&shown).add(progress))
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shown {
    fn add(&mut self, progress: &Progress) {
        // Its histogram is for merging alone.
        let second = Interval { latency: loadtest::Distribution::default(), ..progress.second.clone() };
        self.seconds.push_back(second.clone());
        if self.seconds.len() > SECONDS_MAX {
            self.seconds.pop_front();
        }
        self.latest = Some(Progress { second, so_far: progress.so_far.clone() });
    }
}

fn lock(shown: &Mutex<Shown>) -> MutexGuard<'_, Shown> {
    shown.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Leaves the terminal as it was, if it was taken. Nothing is drawn from then on.
pub(super) fn give_back() {
    TERMINAL.give_back(|| {
        let _ = execute!(stderr(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    });
}

/// A panic's message belongs on a terminal that can be read.
fn restore_on_panic() {
    let otherwise = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        give_back();
        otherwise(panic);
    }));
}

/// Whose terminal is gone ends at once, as without a view, but leaves the terminal as it was.
fn restore_on_hangup() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut came) = signal(SignalKind::hangup()) else { return };
    tokio::spawn(async move {
        if came.recv().await.is_some() {
            give_back();
            std::process::exit(128 + 1);
        }
    });
}

fn keep_drawing(
    terminal: &mut Terminal<CrosstermBackend<Stderr>>,
    title: &Title,
    shown: &Mutex<Shown>,
    is_over: &AtomicBool,
    stop: &watch::Sender<bool>,
) {
    while !is_over.load(Ordering::Acquire) {
        let picture = lock(shown).clone();
        let drawn = TERMINAL.draw(|| terminal.draw(|frame| draw(frame, title, &picture)).is_ok());
        if drawn != Some(true) {
            return;
        }
        let next = Instant::now() + FRAME;
        loop {
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() || is_over.load(Ordering::Acquire) {
                break;
            }
            match event::poll(left).and_then(|came| if came { event::read().map(Some) } else { Ok(None) }) {
                // From here on the run ends; the terminal is given back at once, so that a second interrupt is the usual one.
                Ok(Some(event)) if ends(&event) => {
                    let _ = stop.send(true);
                    return;
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }
}

/// True for `q` and an interrupt, which a terminal that is drawn on tells as a key.
fn ends(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.code == KeyCode::Char('q') || is_interrupt
}

fn draw(frame: &mut Frame<'_>, title: &Title, shown: &Shown) {
    let [head, figures, latency, rate] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(9),
        Constraint::Min(6),
        Constraint::Length(6),
    ])
    .areas(frame.area());
    let latest = shown.latest.clone().unwrap_or_default();
    let left_s = (title.duration.as_secs_f64() - latest.so_far.seconds).max(0.0);
    let line = format!("{}  {left_s:.0} s left  (q ends the run)", title.what);
    frame.render_widget(Paragraph::new(line.bold()), head);
    let [numbers, reasons] =
        Layout::horizontal([Constraint::Min(40), Constraint::Percentage(40)]).areas(figures);
    frame.render_widget(numbers_of(&latest), numbers);
    frame.render_widget(reasons_of(&latest.so_far), reasons);
    draw_latency(frame, latency, &shown.seconds);
    let replies: Vec<u64> = shown.seconds.iter().map(|second| second.replied).collect();
    let width = usize::from(rate.width.saturating_sub(2));
    let last = &replies[replies.len().saturating_sub(width)..];
    let title = format!(" replies a second, {} now ", latest.second.replied);
    frame.render_widget(Sparkline::default().data(last).block(Block::bordered().title(title)), rate);
}

fn numbers_of(latest: &Progress) -> Paragraph<'static> {
    let Progress { second, so_far } = latest;
    let begun = second.offered - second.dropped.min(second.offered);
    let percentiles = |name: &str, of: [f64; 5]| {
        let [p50, p90, p99, p999, max] = of;
        Line::from(format!("{name:<12}{p50:>9.0}{p90:>9.0}{p99:>9.0}{p999:>9.0}{max:>9.0}"))
    };
    let mut lines = vec![
        Line::from(format!("offered {}  begun {begun}  replied {}", second.offered, second.replied)),
        Line::from(format!(
            "{:<12}{:>9}{:>9}{:>9}{:>9}{:>9}",
            "latency us", "p50", "p90", "p99", "p99.9", "max"
        ))
        .dim(),
        percentiles(
            "last second",
            [second.p50_us, second.p90_us, second.p99_us, second.p999_us, second.max_us],
        ),
        percentiles("the run", [so_far.p50_us, so_far.p90_us, so_far.p99_us, so_far.p999_us, so_far.max_us]),
        Line::from(format!(
            "dropped {}  late p99 {:.0} us  not sent {}  resolved {}  unknown {}",
            so_far.dropped, so_far.late_p99_us, so_far.unsent, so_far.resolved, so_far.unknown
        )),
    ];
    if so_far.contradictions > 0 {
        let text = format!("{} replies contradict their request", so_far.contradictions);
        lines.push(Line::from(text).red().bold());
    }
    if let Some(injected) = so_far.injected {
        lines.push(Line::from(format!(
            "injected: lost {}  late {}  doubled {}  killed {}",
            injected.dropped, injected.delayed, injected.doubled, injected.killed
        )));
    }
    Paragraph::new(lines).block(Block::bordered())
}

fn reasons_of(so_far: &Report) -> Paragraph<'static> {
    let mut reasons: Vec<(&String, &u64)> = so_far.declined.iter().chain(&so_far.refused).collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let line = |(name, count): &(&String, &u64)| Line::from(format!("{count:>9} {name}"));
    let lines: Vec<Line<'static>> = reasons.iter().take(REASONS_MAX).map(line).collect();
    Paragraph::new(lines).block(Block::bordered().title(" declined, by reason "))
}

/// Percentiles of each second, on a scale of powers of ten.
fn draw_latency(frame: &mut Frame<'_>, area: Rect, seconds: &VecDeque<Interval>) {
    let points = |of: fn(&Interval) -> f64| -> Vec<(f64, f64)> {
        seconds.iter().map(|second| (second.at_s, of(second).max(1.0).log10())).collect()
    };
    let (p50, p99) = (points(|second| second.p50_us), points(|second| second.p99_us));
    let (from, to) =
        (seconds.front().map_or(0.0, |first| first.at_s), seconds.back().map_or(1.0, |last| last.at_s));
    let top = p99.iter().map(|(_, log)| *log).fold(1.0, f64::max).ceil();
    let dataset = |name: &'static str, color, data| {
        let line = Dataset::default().name(name).marker(Marker::Braille).graph_type(GraphType::Line);
        line.style(Style::new().fg(color)).data(data)
    };
    let chart = Chart::new(vec![dataset("p99", Color::Yellow, &p99), dataset("p50", Color::Cyan, &p50)])
        .block(Block::bordered().title(" latency of each second, us "))
        .x_axis(Axis::default().bounds([from, to.max(from + 1.0)]))
        .y_axis(
            Axis::default().bounds([0.0, top]).labels(["1".to_owned(), format!("{:.0}", 10_f64.powf(top))]),
        );
    frame.render_widget(chart, area);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop")]
mod tests {
    use super::*;
    use loadtest::Injected;
    use ratatui::backend::TestBackend;

    fn shown(seconds: u32) -> Shown {
        let mut shown = Shown::default();
        for at in 0..seconds {
            let second = Interval {
                at_s: f64::from(at),
                seconds: 1.0,
                offered: 5000,
                dropped: 7,
                replied: 4900,
                p50_us: 80.0,
                p99_us: 1234.0,
                ..Interval::default()
            };
            let so_far = Report {
                seconds: f64::from(at) + 1.0,
                p99_us: 2345.0,
                dropped: 70,
                declined: [("INSUFFICIENT".to_owned(), 31), ("VELOCITY".to_owned(), 2)].into(),
                injected: Some(Injected { dropped: 11, ..Injected::default() }),
                ..Report::default()
            };
            shown.add(&Progress { second, so_far });
        }
        shown
    }

    fn picture(width: u16, height: u16, shown: &Shown) -> String {
        let title = Title { what: "tap over quic, 5000/s".to_owned(), duration: Duration::from_secs(60) };
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, &title, shown)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn a_picture_says_how_the_run_fares() {
        let picture = picture(110, 30, &shown(12));
        for part in [
            "tap over quic, 5000/s  48 s left",
            "offered 5000  begun 4993  replied 4900",
            "1234",
            "2345",
            "dropped 70",
            "31 INSUFFICIENT",
            "injected: lost 11",
            "replies a second, 4900 now",
            "latency of each second",
        ] {
            assert!(picture.contains(part), "{part}: {picture}");
        }
        assert!(picture.find("INSUFFICIENT") < picture.find("VELOCITY"));
        assert_eq!(shown(400).seconds.len(), SECONDS_MAX);
    }

    #[test]
    fn nothing_is_drawn_once_the_terminal_was_given_back() {
        let hold = Hold(ReentrantMutex::new(Cell::new(false)));
        hold.give_back(|| panic!("it was never taken"));
        hold.take();
        let mut restored = 0;
        // As the hook of a panic in the middle of a picture does.
        assert_eq!(hold.draw(|| hold.give_back(|| restored += 1)), Some(()));
        assert_eq!((hold.draw(|| ()), restored), (None, 1));
        hold.give_back(|| panic!("it was given back"));
    }

    #[test]
    fn no_terminal_is_too_small() {
        for width in (1..=20).chain([80]) {
            for height in (1..=5).chain([24]) {
                for seconds in [0, 1, 40] {
                    picture(width, height, &shown(seconds));
                }
            }
        }
    }

    #[test]
    fn q_and_an_interrupt_end_the_run() {
        use ratatui::crossterm::event::KeyEvent;
        let key = |code, modifiers| Event::Key(KeyEvent::new(code, modifiers));
        assert!(ends(&key(KeyCode::Char('q'), KeyModifiers::NONE)));
        assert!(ends(&key(KeyCode::Char('c'), KeyModifiers::CONTROL)));
        assert!(!ends(&key(KeyCode::Char('c'), KeyModifiers::NONE)) && !ends(&Event::Resize(1, 1)));
    }
}

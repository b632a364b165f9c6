//! What every exporter tells of its process, under the names that dashboards expect.

use std::fs;
use std::sync::OnceLock;

use rustix::param::{clock_ticks_per_second, page_size};

use crate::page::{Page, Sort};

/// Fields of `/proc/self/stat` behind the command's closing parenthesis; see proc_pid_stat(5).
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;
const START_TIME: usize = 19;
const VIRTUAL_BYTES: usize = 20;
const RESIDENT_PAGES: usize = 21;

/// Writes what the kernel says; what it does not say is left out.
pub(crate) fn render(page: &mut Page) {
    if let Ok(stat) = fs::read_to_string("/proc/self/stat") {
        render_stat(page, &stat);
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        // One of them is that of the reading.
        gauge(page, "process_open_fds", "file descriptors in use", files.count().saturating_sub(1) as f64);
    }
}

#[expect(clippy::cast_precision_loss, reason = "what is printed needs no more than 52 bits")]
fn render_stat(page: &mut Page, stat: &str) {
    // The command is in parentheses, and may hold any character.
    let Some((_, rest)) = stat.rsplit_once(')') else { return };
    let fields: Vec<u64> = rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    let field = |index: usize| fields.get(index).copied().unwrap_or(0) as f64;
    let ticks = clock_ticks_per_second() as f64;
    let used = (field(USER_TIME) + field(SYSTEM_TIME)) / ticks;
    page.single("process_cpu_seconds_total", Sort::Counter, "processor time used", used);
    gauge(page, "process_virtual_memory_bytes", "address space", field(VIRTUAL_BYTES));
    let resident = field(RESIDENT_PAGES) * page_size() as f64;
    gauge(page, "process_resident_memory_bytes", "memory in use", resident);
    // Reckoned once: it must not move with the clock, since whoever sees it change takes it for a new start.
    static STARTED: OnceLock<Option<f64>> = OnceLock::new();
    if let Some(started) = STARTED.get_or_init(|| Some(boot_time()? + field(START_TIME) / ticks)) {
        gauge(page, "process_start_time_seconds", "start, since 1970", *started);
    }
}

/// When the machine was started, in seconds since 1970; see proc_stat(5).
fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn gauge(page: &mut Page, name: &str, help: &str, value: f64) {
    page.single(name, Sort::Gauge, help, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_spaces_and_parentheses_is_passed_over() {
        let mut page = Page::default();
        let mut fields = vec!["0"; 30];
        (fields[0], fields[USER_TIME], fields[RESIDENT_PAGES]) = ("S", "700", "3");
        render_stat(&mut page, &format!("1 (a b) c) {}", fields.join(" ")));
        let text = page.into_text();
        let cpu = 700.0 / clock_ticks_per_second() as f64;
        assert!(text.contains(&format!("\nprocess_cpu_seconds_total {cpu}\n")), "{text}");
        assert!(text.contains(&format!("\nprocess_resident_memory_bytes {}\n", 3 * page_size())), "{text}");
    }

    #[test]
    fn this_process_has_memory_files_and_a_start_that_stays() {
        let start = |text: &str| {
            let line = text.lines().find(|line| line.starts_with("process_start_time_seconds"));
            line.unwrap().to_owned()
        };
        let rendered = || {
            let mut page = Page::default();
            render(&mut page);
            page.into_text()
        };
        let text = rendered();
        std::thread::sleep(std::time::Duration::from_millis(30));
        let later = rendered();
        assert_eq!(start(&text), start(&later));
        for name in ["process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds"] {
            let line = text.lines().find(|line| line.starts_with(name)).expect(name);
            let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            assert!(value > 0.0, "{line}");
        }
    }
}

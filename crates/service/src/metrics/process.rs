//! Memory, CPU, files and threads of this process, read from `/proc` at scrape time.

use std::fs;
use std::path::Path;

use super::{Samples, names};

/// `AT_CLKTCK` of `<elf.h>`: clock ticks per second in the auxiliary vector.
const AT_CLKTCK: u64 = 17;
/// Linux's ticks per second on every architecture we build for, used when the vector cannot be read.
const USUAL_TICKS: f64 = 100.0;

/// Adds what can be read; what cannot (another operating system, a hidden `/proc`) is left out.
pub(super) fn collect(samples: &mut Samples) {
    collect_from(Path::new("/proc"), samples);
}

fn collect_from(proc: &Path, samples: &mut Samples) {
    let this = proc.join("self");
    if let Ok(status) = fs::read_to_string(this.join("status")) {
        for (field, def, scale) in [
            ("VmRSS:", &names::PROCESS_RESIDENT_BYTES, 1024.0),
            ("VmHWM:", &names::PROCESS_RESIDENT_MAX_BYTES, 1024.0),
            ("VmSize:", &names::PROCESS_VIRTUAL_BYTES, 1024.0),
            ("Threads:", &names::PROCESS_THREADS, 1.0),
        ] {
            if let Some(value) = status_field(&status, field) {
                samples.gauge(def, &[], value * scale);
            }
        }
    }
    let ticks = ticks_per_second(&this);
    if let Some((cpu, started)) = fs::read_to_string(this.join("stat"))
        .ok()
        .as_deref()
        .and_then(parse_stat)
    {
        samples.counter_f64(&names::PROCESS_CPU_SECONDS, &[], cpu / ticks);
        if let Some(boot) = boot_time(proc) {
            samples.gauge(&names::PROCESS_START_SECONDS, &[], boot + started / ticks);
        }
    }
    if let Ok(entries) = fs::read_dir(this.join("fd")) {
        // One of them is the listing itself.
        samples.gauge_count(
            &names::PROCESS_OPEN_FDS,
            &[],
            (entries.count() as u64).saturating_sub(1),
        );
    }
    if let Some(limit) = fs::read_to_string(this.join("limits"))
        .ok()
        .as_deref()
        .and_then(parse_max_files)
    {
        samples.gauge(&names::PROCESS_MAX_FDS, &[], limit);
    }
}

/// The number after `field` at the beginning of a line of `/proc/self/status`.
fn status_field(status: &str, field: &str) -> Option<f64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(field))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// CPU time (user and system) and start time of `/proc/self/stat`, in ticks. The second field, the program's name in
/// parentheses, may hold spaces and parentheses itself.
fn parse_stat(stat: &str) -> Option<(f64, f64)> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    // Field numbers of proc(5) less the three that are gone or start at 1: utime 14, stime 15, starttime 22.
    let number = |field: usize| {
        fields
            .get(field - 3)
            .and_then(|text| text.parse::<f64>().ok())
    };
    Some((number(14)? + number(15)?, number(22)?))
}

/// `btime` of `/proc/stat`: seconds since the epoch at which the system booted.
fn boot_time(proc: &Path) -> Option<f64> {
    status_field(&fs::read_to_string(proc.join("stat")).ok()?, "btime ")
}

/// The soft limit of the `Max open files` line of `/proc/self/limits`.
fn parse_max_files(limits: &str) -> Option<f64> {
    let rest = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Ticks per second from the auxiliary vector: pairs of native 64-bit words.
fn ticks_per_second(this: &Path) -> f64 {
    let vector = fs::read(this.join("auxv")).unwrap_or_default();
    let word = |bytes: &[u8]| bytes.try_into().map(u64::from_ne_bytes).ok();
    vector
        .chunks_exact(16)
        .find(|pair| word(&pair[..8]) == Some(AT_CLKTCK))
        .and_then(|pair| word(&pair[8..]))
        .and_then(|ticks| u32::try_from(ticks).ok())
        .filter(|ticks| *ticks > 0)
        .map_or(USUAL_TICKS, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_an_odd_program_name() {
        let stat =
            "42 (a) b (c) S 1 42 42 0 -1 4194304 100 0 0 0 350 150 0 0 20 0 4 0 9000 1000 200";
        assert_eq!(parse_stat(stat), Some((500.0, 9000.0)));
        assert_eq!(parse_stat("42 (a) S 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn files_and_memory_are_read() {
        let limits =
            "Limit   Soft Limit  Hard Limit Units\nMax open files            1024  4096  files\n";
        assert_eq!(parse_max_files(limits), Some(1024.0));
        assert_eq!(parse_max_files("Max open files unlimited"), None);
        assert_eq!(
            status_field("Name: x\nVmRSS:\t  2048 kB\n", "VmRSS:"),
            Some(2048.0)
        );
    }

    #[test]
    fn an_unreadable_proc_gives_no_samples() {
        let empty = tempfile::tempdir().unwrap();
        let mut samples = Samples::default();
        collect_from(empty.path(), &mut samples);
        assert!(samples.into_families().is_empty());
    }

    #[test]
    fn this_process_has_memory_threads_files_and_used_cpu() {
        let mut samples = Samples::default();
        collect(&mut samples);
        let families = samples.into_families();
        let value = |name: &str| {
            let family = families
                .iter()
                .find(|f| f.name() == name)
                .unwrap_or_else(|| panic!("no {name}"));
            let metric = &family.get_metric()[0];
            metric
                .get_gauge()
                .get_value()
                .max(metric.get_counter().get_value())
        };
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(
            value("process_resident_memory_max_bytes")
                >= value("process_resident_memory_bytes") / 2.0
        );
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_cpu_seconds_total") >= 0.0);
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        let started = value("process_start_time_seconds");
        assert!(
            started <= now + 1.0 && started > now - 86_400.0,
            "{started} against {now}"
        );
    }
}

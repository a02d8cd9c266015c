use std::io::{self, Write};

use parking_lot::Mutex;
use tracing::{debug, error, info, warn};

use super::*;

/// Collects what a test logs.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Captured {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }
}

/// Runs `log` with everything that `init` sets up except the process-wide part; returns what was written.
fn logged(config: &Config, log: impl FnOnce()) -> String {
    let captured = Captured::default();
    let (queue, guard) = writer::start(captured.clone()).unwrap();
    let rate = Arc::new(RateLimit::new(config.burst, config.window));
    let subscriber = tracing_subscriber::registry()
        .with(parse_filter(&config.filter).unwrap())
        .with(lines(
            format::Lines::new(config.format, Arc::clone(&rate)),
            config,
            queue,
            rate,
        ));
    tracing::subscriber::with_default(subscriber, log);
    drop(guard);
    captured.text()
}

fn with_format(format: Format) -> Config {
    Config {
        format,
        ..Config::default()
    }
}

/// `text` with every digit as `0`, so that times compare.
fn digits_as_zero(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect()
}

#[test]
fn text_lines_show_time_level_target_message_and_fields() {
    let text = logged(&with_format(Format::Text { color: false }), || {
        info!(target: "doppler", peer = "127.0.0.1:4000", bytes = 512, open = true, "accepted");
        debug!("not shown at info");
        error!(target: "doppler", reason = "bad\x1b[31m input\n", "stopped");
    });
    assert_eq!(
        digits_as_zero(&text),
        "0000-00-00T00:00:00.000Z  INFO doppler: accepted peer=000.0.0.0:0000 bytes=000 open=true
0000-00-00T00:00:00.000Z ERROR doppler: stopped reason=\"bad\\u{0b}[00m input\\n\"
"
    );
}

#[test]
fn coloured_text_colours_the_level_only() {
    let text = logged(
        &with_format(Format::Text { color: true }),
        || warn!(target: "agent", "away"),
    );
    assert!(
        text.contains("\x1b[33m WARN\x1b[0m agent: away\n"),
        "{text:?}"
    );
}

#[test]
fn json_lines_parse_and_keep_types() {
    let text = logged(&with_format(Format::Json), || {
        let source = io::Error::other("disk \"full\"");
        info!(target: "agent", count = 3_u64, ratio = 0.5, ok = false, error = &source as &dyn std::error::Error, "line\n2");
    });
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(text.matches('\n').count(), 1);
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["target"], "agent");
    assert_eq!(line["message"], "line\n2");
    assert_eq!(line["count"], 3);
    assert_eq!(line["ratio"], 0.5);
    assert_eq!(line["ok"], false);
    assert_eq!(line["error"], "disk \"full\"");
    assert_eq!(
        digits_as_zero(line["timestamp"].as_str().unwrap()),
        "0000-00-00T00:00:00.000000000Z"
    );
}

#[test]
fn go_lines_are_a_time_and_the_message() {
    let text = logged(&with_format(Format::Go), || {
        info!("grpc bound to: [::]:8082")
    });
    assert_eq!(
        digits_as_zero(&text),
        "0000/00/00 00:00:00.000000 grpc bound to: [::]:0000\n"
    );
    let text = logged(&with_format(Format::GoRfc3339), || {
        info!("grpc bound to: [::]:8082")
    });
    assert_eq!(
        digits_as_zero(&text),
        "0000-00-00T00:00:00.000000000Z grpc bound to: [::]:0000\n"
    );
}

#[test]
fn a_noisy_place_is_limited_and_what_was_left_out_is_told() {
    let config = Config {
        burst: 2,
        window: Duration::from_millis(50),
        ..Config::default()
    };
    let text = logged(&config, || {
        for n in 0..10 {
            warn!(n, "bad datagram");
        }
        let told = std::time::Instant::now() + Duration::from_secs(10);
        let window_end = std::time::Instant::now() + config.window * 2;
        while std::time::Instant::now() < window_end.min(told) {
            std::thread::yield_now();
        }
        info!("something else");
    });
    assert_eq!(
        text.matches("bad datagram").count() + suppressed_in(&text),
        10,
        "{text}"
    );
    assert!(suppressed_in(&text) >= 6, "{text}");
    assert!(
        text.contains("similar lines were left out lines="),
        "{text}"
    );
}

fn suppressed_in(text: &str) -> usize {
    let numbers = text
        .lines()
        .filter_map(|line| line.split_once("left out lines=")?.1.split(' ').next());
    numbers.map(|number| number.parse::<usize>().unwrap()).sum()
}

#[test]
fn settings_are_read_and_checked() {
    use std::collections::BTreeMap;
    let config = Config::from_env(&BTreeMap::<&str, &str>::new()).unwrap();
    assert_eq!(
        (config.filter.as_str(), config.format, config.burst),
        ("info", Format::Text { color: false }, 20)
    );
    let env = BTreeMap::from([("LOG_LEVEL", "warn,doppler=debug"), ("LOG_FORMAT", "go")]);
    let config = Config::from_env(&env).unwrap();
    assert_eq!(
        (config.filter.as_str(), config.format),
        ("warn,doppler=debug", Format::Go)
    );
    let env = BTreeMap::from([("LOG_LEVEL", "doppler=loud"), ("LOG_FORMAT", "xml")]);
    assert_eq!(Config::from_env(&env).unwrap_err().0.len(), 2);
}

#[test]
fn filters_that_cannot_be_understood_are_named() {
    let error = parse_filter("doppler=loud").unwrap_err();
    assert_eq!(error.to_string(), "log filter \"doppler=loud\"");
}

/// The only test that may set up the process's log.
#[test]
fn the_process_log_is_set_up_once_and_its_filter_can_be_changed() {
    let guard = init(&Config {
        filter: "warn".into(),
        ..Config::default()
    })
    .unwrap();
    assert!(matches!(
        init(&Config::default()),
        Err(Error::AlreadySet(_))
    ));
    let control = control().unwrap();
    assert_eq!(control.filter(), "warn");
    control.set_filter("warn,doppler=debug").unwrap();
    assert_eq!(control.filter().split(',').count(), 2);
    assert!(control.set_filter("a=b=c").is_err());
    assert_eq!(control.filter().split(',').count(), 2);
    control.set_filter("warn").unwrap();
    drop(guard);
}

/// A writer that takes nothing until it is let go.
struct Stuck(Arc<Mutex<()>>);

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _open = self.0.lock();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_stops_costs_lines_and_not_time() {
    use tracing_subscriber::fmt::MakeWriter as _;
    let gate = Arc::new(Mutex::new(()));
    let (queue, guard) = writer::start(Stuck(Arc::clone(&gate))).unwrap();
    let closed = gate.lock();
    for _ in 0..10_000 {
        queue.make_writer().write_all(b"line\n").unwrap();
    }
    // The queue holds 4096 lines, and the thread one more.
    let dropped = queue.dropped();
    assert!(
        (10_000 - 4097..=10_000 - 4096).contains(&dropped),
        "{dropped}"
    );
    drop(closed);
    drop(guard);
}

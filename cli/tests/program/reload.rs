//! SIGHUP: a nozzle takes over what its file says now.

use std::path::Path;

use crate::nozzles::{emit_numbers, file, last_words, numbers, to_file, wait_until};
use crate::running::{Reader, Up};

/// `nozzle run` with this file, once a line has come to `path`; and the number of the last line sent.
fn begun(up: &Up, config: &Path, path: &Path) -> (Reader, u32) {
    let run = Reader::start(up.command(["nozzle", "run", config.to_str().unwrap()]));
    let mut sent = 0;
    wait_until("a line arrives", || {
        sent += 1;
        emit_numbers(up, sent..=sent);
        !last_words(path).is_empty()
    });
    (run, sent)
}

/// Scenario: what a nozzle's file says changes while it runs; SIGHUP. Then it says something wrong, and something that cannot
/// change; SIGHUP each time.
/// Guarantee: what comes next goes where the file says now, nothing is lost between; a wrong file changes nothing and is told.
#[test]
fn a_hangup_takes_over_what_the_file_says() {
    let temp = tempfile::tempdir().unwrap();
    let (before, after) = (temp.path().join("before"), temp.path().join("after"));
    let config = file(temp.path(), "lines.toml", &to_file(&before));
    let up = Up::start(&[]);
    let (run, sent) = begun(&up, &config, &before);
    emit_numbers(&up, sent + 1..=sent + 500);
    file(temp.path(), "lines.toml", &to_file(&after));
    run.signal("HUP");
    run.wait_for_error("nozzle lines: reloaded; started anew: lines\n");
    emit_numbers(&up, sent + 501..=sent + 1000);
    let last = (sent + 1000).to_string();
    wait_until("the last line arrives", || {
        last_words(&after).last() == Some(&last)
    });
    let mut all = last_words(&before);
    all.extend(last_words(&after));
    // The subscription stood after the first few.
    let first: u32 = all[0].parse().unwrap();
    assert!(all == numbers(sent + 1000)[first as usize - 1..], "{all:?}");

    file(temp.path(), "lines.toml", "[nozzle]\nname = \"lines\"\n");
    run.signal("HUP");
    run.wait_for_error(&format!(
        "{}: destination: is missing: at least one [[destination]] is needed\nnot reloaded: the nozzle goes on as before\n",
        config.display()
    ));
    let other = to_file(&after) + "[buffer.memory]\nmax_bytes = \"1MiB\"\n";
    file(temp.path(), "lines.toml", &other);
    run.signal("HUP");
    run.wait_for_error("[buffer] cannot change while the nozzle runs");
    emit_numbers(&up, 7_777..=7_777);
    wait_until("a line arrives still", || {
        last_words(&after).last().map(String::as_str) == Some("7777")
    });
    run.signal("TERM");
    assert_eq!(run.finish().2, Some(0));
}

/// A nozzle with its buffer on disk that writes the lines of `seq` to files, a destination each.
fn to_files(buffer: &Path, size: &str, paths: &[&Path]) -> String {
    let mut text = format!(
        "[nozzle]\nname = \"lines\"\n[buffer.disk]\npath = \"{}\"\nmax_bytes = \"{size}\"\n",
        buffer.display()
    );
    for (i, path) in paths.iter().enumerate() {
        let name = path.file_stem().unwrap().display();
        text += &format!(
            "[[destination]]\nname = \"{name}\"\nfilter = 'kind == \"log\" and source_id == \"seq\"'\n\
             batch.linger = \"{}ms\"\n[destination.file]\npath = \"{}\"\nformat = \"text\"\n",
            i + 1,
            path.display()
        );
    }
    text
}

/// Scenario: a nozzle with its buffer on disk; while lines come, its file gets another destination and a bigger buffer, then loses
/// the first destination, then wants one that cannot be started; SIGHUP each time.
/// Guarantee: it is started anew in its process and loses nothing; what cannot be started leaves it as it was.
#[test]
fn a_hangup_starts_a_nozzle_anew_when_it_must() {
    let temp = tempfile::tempdir().unwrap();
    let (one, two) = (temp.path().join("one.txt"), temp.path().join("two.txt"));
    let buffer = temp.path().join("buffer");
    let text = to_files(&buffer, "64MiB", &[&one]);
    let config = file(temp.path(), "lines.toml", &text);
    let up = Up::start(&[]);
    let (run, sent) = begun(&up, &config, &one);
    let first: usize = last_words(&one)[0].parse().unwrap();
    emit_numbers(&up, sent + 1..=sent + 500);
    let anew = "nozzle lines: reloaded; started anew as a whole, with the buffer as it was\n";
    let text = to_files(&buffer, "80MiB", &[&one, &two]);
    file(temp.path(), "lines.toml", &text);
    run.signal("HUP");
    emit_numbers(&up, sent + 501..=sent + 1000);
    run.wait_for_error(anew);
    emit_numbers(&up, sent + 1001..=sent + 1500);
    let last = (sent + 1500).to_string();
    for path in [&one, &two] {
        wait_until("the last line arrives", || {
            last_words(path).last() == Some(&last)
        });
    }
    assert!(
        last_words(&one) == numbers(sent + 1500)[first - 1..],
        "{:?}",
        last_words(&one)
    );
    let of_two = last_words(&two);
    let began: usize = of_two[0].parse().unwrap();
    assert!(of_two == numbers(sent + 1500)[began - 1..], "{of_two:?}");
    assert!(began <= sent as usize + 1001, "{began}");

    file(
        temp.path(),
        "lines.toml",
        &to_files(&buffer, "80MiB", &[&two]),
    );
    run.signal("HUP");
    wait_until("it is started anew once more", || {
        run.errors().matches(anew).count() == 2
    });
    emit_numbers(&up, 7_777..=7_777);
    let got = |line: &str| last_words(&two).last().map(String::as_str) == Some(line);
    wait_until("a line arrives still", || got("7777"));
    assert_eq!(last_words(&one).last(), Some(&last));

    let nowhere = temp.path().join("no").join("three.txt");
    file(
        temp.path(),
        "lines.toml",
        &to_files(&buffer, "80MiB", &[&two, &nowhere]),
    );
    run.signal("HUP");
    run.wait_for_error("No such file or directory (os error 2); it goes on as before\n");
    emit_numbers(&up, 8_888..=8_888);
    wait_until("a line arrives still", || got("8888"));
    run.signal("TERM");
    assert_eq!(run.finish().2, Some(0));
}

/// Scenario: SIGHUP with a change that needs a new start, while the folder of a destination is gone; then it is there again.
/// Guarantee: neither the new nor the old nozzle can start, which is told; once it can, it runs as before, and nothing ended.
#[test]
fn a_nozzle_that_cannot_start_again_comes_back() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    let (one, two) = (folder.join("one.txt"), temp.path().join("two.txt"));
    let buffer = temp.path().join("buffer");
    let text = to_files(&buffer, "64MiB", &[&one]);
    let config = file(temp.path(), "lines.toml", &text);
    let up = Up::start(&[]);
    let (run, mut sent) = begun(&up, &config, &one);
    std::fs::rename(&folder, temp.path().join("gone")).unwrap();
    let text = to_files(&buffer, "64MiB", &[&two, &one]);
    file(temp.path(), "lines.toml", &text);
    run.signal("HUP");
    run.wait_for_error("that is tried again, its events wait in the buffer\n");
    std::fs::create_dir(&folder).unwrap();
    wait_until("a line arrives again", || {
        sent += 1;
        emit_numbers(&up, sent..=sent);
        !last_words(&one).is_empty()
    });
    run.wait_for_error("it runs again, as before");
    assert_eq!(last_words(&two), Vec::<String>::new());
    run.signal("TERM");
    assert_eq!(run.finish().2, Some(0));
}

//! The generator against the floor and against a doppler: small rates, no goals, but everything must arrive once and
//! in order, and the doppler's ledger must agree.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use loggregator_benches::emit::Pace;
use loggregator_benches::http2::Windows;
use loggregator_benches::plan::{Plan, Readers, Target};
use loggregator_benches::report::Report;
use loggregator_benches::run::run;
use loggregator_benches::workload::Shape;
use loggregator_benches::{commands, text};

/// The command with the program where cargo put it: the test does not lie beside the programs.
fn started(name: &str, program: &str, command: &str) -> String {
    command.replace(&commands::sibling(name).display().to_string(), program)
}

fn plan(name: &str, readers: Readers) -> Plan {
    let doppler = match name {
        "relay" => started("relay", env!("CARGO_BIN_EXE_relay"), &commands::relay()),
        _ => started(
            "doppler-target",
            env!("CARGO_BIN_EXE_doppler-target"),
            &commands::doppler(),
        ),
    };
    Plan {
        target: Target::Start {
            name: name.to_owned(),
            doppler,
            controller: Some(started(
                "controller-target",
                env!("CARGO_BIN_EXE_controller-target"),
                &commands::controller(),
            )),
            proxy: Some(started(
                "rlp-target",
                env!("CARGO_BIN_EXE_rlp-target"),
                &commands::rlp(),
            )),
        },
        shape: Shape {
            batch: 10,
            sources: 50,
            ..Shape::default()
        },
        pace: Pace::Rate(2_000.0),
        readers,
        windows: Windows::default(),
        warmup: Duration::from_millis(200),
        time: Duration::from_millis(500),
        log_bytes: 64 << 20,
        stall: None,
        slow: None,
        quiet: None,
        preferred_tags: true,
        token: None,
        secure_websockets: true,
    }
}

fn checked(plan: &Plan) -> Report {
    let report = run(plan).unwrap();
    assert!(report.clean(), "{}", text::render(&report));
    assert!(report.sent > 0 && report.expected > 0 && report.latency.count > 0);
    report
}

/// Delivered envelopes of all subscriptions; each row must add up.
fn delivered(report: &Report) -> u64 {
    let ledger = report.ledger.as_ref().expect("a ledger");
    let mut delivered = 0;
    for row in ledger["subscriptions"].as_array().unwrap() {
        let number = |name: &str| row[name].as_u64().unwrap();
        let dropped: u64 = row["dropped"]
            .as_object()
            .unwrap()
            .values()
            .filter_map(|n| n.as_u64())
            .sum();
        assert_eq!(
            number("received"),
            number("delivered") + dropped + number("pending"),
            "{row}"
        );
        delivered += number("delivered");
    }
    delivered
}

#[test]
fn the_floor_passes_everything_on() {
    let report = checked(&plan("relay", Readers::Firehoses(3)));
    assert!(report.processes[0].rss_peak_mib > 0.0);
}

#[test]
fn firehoses_of_a_doppler_get_everything_and_the_quiet_source_too() {
    let mut plan = plan("doppler", Readers::Firehoses(3));
    plan.quiet = Some(50.0);
    let report = checked(&plan);
    let quiet = report.quiet.unwrap();
    assert!(quiet.sent > 0 && quiet.lost_by_first + quiet.lost_by_others == 0);
    // Probes and the doppler's own metrics come on top.
    assert!(delivered(&report) >= report.expected);
}

#[test]
fn tails_get_their_source_and_members_their_share() {
    let tails = checked(&plan("doppler", Readers::Tails(20)));
    assert!(delivered(&tails) >= tails.expected);

    let members = checked(&plan("doppler", Readers::Members(3)));
    let (least, most) = members.member_shares.unwrap();
    assert!(least > 0.2 && most < 0.5, "shares from {least} to {most}");
}

#[test]
fn websockets_get_everything_through_the_traffic_controller() {
    let report = checked(&plan("doppler", Readers::WebSockets(2)));
    assert_eq!(report.processes.len(), 2);
}

#[test]
fn firehoses_get_everything_through_the_reverse_log_proxy_wherever_they_want_their_tags() {
    let mut plan = plan("doppler", Readers::Proxied(2));
    for preferred_tags in [true, false] {
        plan.preferred_tags = preferred_tags;
        let report = checked(&plan);
        assert_eq!(report.processes.len(), 2);
        assert_eq!(report.processes[1].name, "rlp");
    }
}

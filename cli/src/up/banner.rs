//! What `up` prints when all is ready.

use super::ports::Choice;
use crate::state::{Endpoints, StateDir};
use crate::view::{Paint, Palette};
use std::path::Path;

/// Everything the banner speaks of.
pub struct Banner<'a> {
    /// The addresses.
    pub endpoints: &'a Endpoints,
    /// The state folder.
    pub dir: &'a StateDir,
    /// The token itself; the person who started this is who it is for.
    pub token: &'a str,
    /// Ports that are not the usual ones: what listens there, and the choice.
    pub moved: &'a [(String, Choice)],
    /// Whether the example apps run.
    pub demo: bool,
    /// How this program is called again.
    pub program: &'a str,
}

impl Banner<'_> {
    /// The text, with a final line feed.
    pub fn render(&self, palette: Palette) -> String {
        let Endpoints {
            agent,
            doppler,
            traffic_controller,
            rlp,
            rlp_gateway,
            nozzles,
            prometheus,
            ..
        } = self.endpoints;
        let mut text = String::new();
        let mut row = |name: &str, value: &str| text.push_str(&format!("  {name:<19} {value}\n"));
        row("agent", &format!("{}  (gRPC v2, mutual TLS)", agent.grpc));
        if let Some(udp) = &agent.udp {
            row("", &format!("{udp}  (dropsonde, UDP)"));
        }
        match (&agent.syslog_tcp, &agent.syslog_udp) {
            (Some(tcp), Some(udp)) if tcp == udp => {
                row("", &format!("{tcp}  (syslog, TCP and UDP)"))
            }
            (tcp, udp) => {
                for (address, transport) in [(tcp, "TCP"), (udp, "UDP")] {
                    if let Some(address) = address {
                        row("", &format!("{address}  (syslog, {transport})"));
                    }
                }
            }
        }
        for (index, doppler) in doppler.iter().enumerate() {
            row(
                if index == 0 { "doppler" } else { "" },
                &format!("{}  (gRPC v1 and v2, mutual TLS)", doppler.grpc),
            );
        }
        row("traffic controller", &traffic_controller.url);
        if let Some(rlp) = rlp {
            row(
                "reverse log proxy",
                &format!("{}  (gRPC v2, mutual TLS)", rlp.grpc),
            );
        }
        if let Some(gateway) = rlp_gateway {
            row("", &format!("{}  (JSON over HTTP)", gateway.url));
        }
        if let Some(prometheus) = prometheus {
            row(
                "prometheus",
                &format!("{}  (the apps' metrics, to scrape)", prometheus.url),
            );
        }
        // That one is a nozzle too, but nobody made it.
        let own = |name: &str| name == super::nozzles::PROMETHEUS && prometheus.is_some();
        for nozzle in nozzles.iter().filter(|nozzle| !own(&nozzle.name)) {
            row(
                &format!("nozzle {}", nozzle.name),
                &format!("{}  (to {})", nozzle.admin, nozzle.destinations.join(", ")),
            );
        }
        row(
            "token",
            &format!(
                "{}  (in {})",
                self.token,
                self.endpoints.token_file.display()
            ),
        );
        row(
            "addresses, keys",
            &self.dir.file("endpoints.json").display().to_string(),
        );
        if let Some(note) = moved_note(self.moved) {
            text.push_str(&format!("\n  {}\n", palette.text(Paint::Notice, &note)));
        }
        text.push_str("\nTry, in a second terminal:\n");
        for command in self.commands() {
            text.push_str(&format!("  {}\n", palette.text(Paint::Kind, &command)));
        }
        text.push_str("\nCtrl-C stops it and drains what is under way.\n");
        format!(
            "{} is up\n\n{text}",
            palette.text(
                Paint::Kind,
                concat!("loggregator ", env!("CARGO_PKG_VERSION"))
            )
        )
    }

    /// Commands that work as they stand.
    fn commands(&self) -> Vec<String> {
        let at = if self.dir.is_default() {
            String::new()
        } else {
            format!(" --state-dir {}", quoted(self.dir.path()))
        };
        let program = self.program;
        let mut commands = if self.demo {
            vec![
                format!("{program} tail{at} web-shop"),
                format!("{program} firehose{at} --kind log --source-type app"),
                format!("{program} status{at}"),
            ]
        } else {
            vec![
                format!("{program} tail{at} my-app"),
                format!("echo hello | {program} emit{at} --source-id my-app --stdin"),
                format!("{program} status{at}"),
            ]
        };
        if let Some(gateway) = &self.endpoints.rlp_gateway {
            commands.push(format!(
                "curl -N --cacert {} -H \"Authorization: $(cat {})\" '{}/v2/read?log'",
                quoted(&self.endpoints.ca_file),
                quoted(&self.endpoints.token_file),
                gateway.url
            ));
        }
        commands
    }
}

/// Which of the usual ports somebody else has.
fn moved_note(moved: &[(String, Choice)]) -> Option<String> {
    let taken: Vec<String> = moved
        .iter()
        .filter_map(|(what, choice)| Some(format!("{} ({what})", choice.instead_of?)))
        .collect();
    match &taken[..] {
        [] => None,
        [one] => Some(format!(
            "The usual port {one} is taken; another one is used."
        )),
        several => Some(format!(
            "The usual ports {} are taken; others are used.",
            several.join(", ")
        )),
    }
}

/// How a person at this shell calls this program again: by its name when it is in the `PATH`, else by its path.
pub fn program_name() -> String {
    let Ok(exe) = std::env::current_exe() else {
        return "loggregator".to_owned();
    };
    let name = exe
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let in_path = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path)
            .any(|dir| std::fs::canonicalize(dir.join(&name)).is_ok_and(|found| found == exe))
    });
    if in_path {
        return name;
    }
    let here = std::env::current_dir().ok();
    match here.as_deref().and_then(|here| exe.strip_prefix(here).ok()) {
        Some(below) => format!("./{}", quoted(below)),
        None => quoted(&exe),
    }
}

fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"/._-+:@%,".contains(&byte));
    if plain {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(demo: bool, moved: &[(String, Choice)]) -> String {
        let endpoints = Endpoints::example();
        let dir = StateDir::new(Some("/tmp/my state".into()));
        Banner {
            endpoints: &endpoints,
            dir: &dir,
            token: "t0ken",
            moved,
            demo,
            program: "loggregator",
        }
        .render(Palette::new(false))
    }

    #[test]
    fn it_names_addresses_token_and_commands_that_can_be_pasted() {
        let text = render(false, &[]);
        for needed in [
            "127.0.0.1:3458",
            "127.0.0.1:3457",
            "127.0.0.1:8082",
            "wss://127.0.0.1:8081",
            "127.0.0.1:8083  (gRPC v2, mutual TLS)",
            "https://127.0.0.1:8088  (JSON over HTTP)",
            "prometheus          http://127.0.0.1:9186/metrics  (the apps' metrics, to scrape)",
            "nozzle audit        http://127.0.0.1:14840  (to siem (syslog))",
            "curl -N --cacert /s/ca.crt -H \"Authorization: $(cat /s/token)\" 'https://127.0.0.1:8088/v2/read?log'",
            "t0ken  (in /s/token)",
            "/tmp/my state/endpoints.json",
            "loggregator tail --state-dir '/tmp/my state' my-app",
        ] {
            assert!(text.contains(needed), "{needed} is missing in\n{text}");
        }
        assert_eq!(
            text.lines()
                .filter(|line| line.contains(" --state-dir "))
                .count(),
            3
        );
        assert!(render(true, &[]).contains("tail --state-dir '/tmp/my state' web-shop"));
    }

    #[test]
    fn a_moved_port_is_said() {
        let choice = Choice {
            addr: "127.0.0.1:40001".parse().unwrap(),
            instead_of: Some(8081),
        };
        let text = render(false, &[("traffic controller".to_owned(), choice)]);
        assert!(
            text.contains("The usual port 8081 (traffic controller) is taken"),
            "{text}"
        );
        let both = [("agent".to_owned(), choice), ("doppler".to_owned(), choice)];
        assert!(
            moved_note(&both)
                .unwrap()
                .starts_with("The usual ports 8081 (agent), 8081 (doppler) are taken")
        );
    }

    #[test]
    fn quoting_survives_a_shell() {
        assert_eq!(quoted(Path::new("/a/b-c.d")), "/a/b-c.d");
        assert_eq!(quoted(Path::new("/it's")), r"'/it'\''s'");
    }
}

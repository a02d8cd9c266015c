//! Settings tables as text: for `--help` and for the reference page.

use std::fmt::Write as _;

use super::Setting;

/// A settings table as plain text, one paragraph per setting, wrapped at 80 columns.
#[must_use]
pub fn help(settings: &[Setting]) -> String {
    let mut out = String::new();
    for setting in settings {
        writeln!(out, "  {}{}", setting.name, note(setting)).ok();
        for line in wrap(setting.help, 72) {
            writeln!(out, "        {line}").ok();
        }
    }
    out
}

/// A settings table as a Markdown section; with the flags of a program whose variables begin with `prefix`, if it has flags.
#[must_use]
pub fn markdown(title: &str, intro: &str, prefix: Option<&str>, settings: &[Setting]) -> String {
    let mut out = format!("## {title}\n\n");
    if !intro.is_empty() {
        write!(out, "{intro}\n\n").ok();
    }
    out.push_str(match prefix {
        Some(_) => "| variable | flag | default | meaning |\n| --- | --- | --- | --- |\n",
        None => "| variable | default | meaning |\n| --- | --- | --- |\n",
    });
    for setting in settings {
        let default = match (setting.required, setting.default) {
            (true, _) => "**required**".to_owned(),
            (false, Some("") | None) => "–".to_owned(),
            (false, Some(default)) => format!("`{default}`"),
        };
        let help = setting.help.replace('|', "\\|");
        write!(out, "| `{}` | ", setting.name).ok();
        if let Some(prefix) = prefix {
            match setting.flag_name(prefix) {
                Some(flag) => write!(out, "`--{flag}` | ").ok(),
                None => write!(out, "– | ").ok(),
            };
        }
        writeln!(out, "{default} | {help} |").ok();
    }
    out
}

fn note(setting: &Setting) -> String {
    match (setting.required, setting.default) {
        (true, _) => " (required)".to_owned(),
        (false, Some("") | None) => String::new(),
        (false, Some(default)) => format!(" [default: {default}]"),
    }
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let full = lines
            .last()
            .is_some_and(|line| !line.is_empty() && line.len() + 1 + word.len() > width);
        if full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: &[Setting] = &[
        Setting::new(
            "LOG_BYTES",
            "256MiB",
            "Bytes of envelopes kept in memory, over the whole process. When the log is full the oldest are overwritten.",
        ),
        Setting::required("CA_FILE", "PEM file a|b."),
        Setting::optional("ADMIN", "Address."),
    ];

    #[test]
    fn help_is_wrapped_text() {
        assert_eq!(
            help(SETTINGS),
            "  LOG_BYTES [default: 256MiB]
        Bytes of envelopes kept in memory, over the whole process. When the log
        is full the oldest are overwritten.
  CA_FILE (required)
        PEM file a|b.
  ADMIN
        Address.
"
        );
    }

    #[test]
    fn markdown_is_a_table() {
        assert_eq!(
            markdown("doppler", "The router.", None, &SETTINGS[1..]),
            "## doppler

The router.

| variable | default | meaning |
| --- | --- | --- |
| `CA_FILE` | **required** | PEM file a\\|b. |
| `ADMIN` | – | Address. |
"
        );
        assert_eq!(
            markdown("", "", Some("CA_"), &[SETTINGS[1].secret(), SETTINGS[1]]),
            "## \n
| variable | flag | default | meaning |
| --- | --- | --- | --- |
| `CA_FILE` | – | **required** | PEM file a\\|b. |
| `CA_FILE` | `--file` | **required** | PEM file a\\|b. |
"
        );
    }
}

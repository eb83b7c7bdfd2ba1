//! Every key of the config file, once: place, type, default, bounds and meaning. The parser, the
//! printed example and the manual's reference are all made from this table.

use std::fmt::Write;
use std::time::Duration;

mod settings;

pub use settings::SETTINGS;

/// The kind of object a key stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Top,
    Upstream,
    ClientKey,
    RequestLog,
}

pub struct Setting {
    pub place: Place,
    pub name: &'static str,
    pub kind: Kind,
    pub default: Fallback,
    pub meaning: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Flag,
    /// A whole number and its bounds, both included.
    Number(Unit, u64, u64),
    Choice(&'static [&'static str]),
    Texts,
    /// Names with a text each.
    Pairs,
    Aliases,
    Upstreams,
    ClientKeys,
    RequestLog,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Count,
    Millis,
    Bytes,
}

/// What holds where the key is absent.
#[derive(Debug, Clone, Copy)]
pub enum Fallback {
    Number(u64),
    Flag(bool),
    Text(&'static str),
    /// Said in words; beside it, a value for the printed example.
    Words(&'static str, &'static str),
    /// There is none; beside it, a value for the printed example.
    Required(&'static str),
}

impl Place {
    pub fn settings(self) -> impl Iterator<Item = &'static Setting> {
        SETTINGS.iter().filter(move |setting| setting.place == self)
    }

    pub fn find(self, name: &str) -> Option<&'static Setting> {
        self.settings().find(|setting| setting.name == name)
    }

    /// Where its keys stand, for a reader.
    pub fn title(self) -> &'static str {
        match self {
            Place::Top => "At the top",
            Place::Upstream => "In each of `upstreams`",
            Place::ClientKey => "In each object of `client_keys`",
            Place::RequestLog => "In `request_log`",
        }
    }
}

fn default(place: Place, name: &str) -> Fallback {
    place
        .find(name)
        .expect("only keys of the table are asked for")
        .default
}

/// Whether some object has a key of this name.
#[cfg(test)]
pub fn has(name: &str) -> bool {
    settings::SETTINGS
        .iter()
        .any(|setting| setting.name == name)
}

/// The default of a number.
pub fn number(place: Place, name: &str) -> u64 {
    match default(place, name) {
        Fallback::Number(number) => number,
        other => unreachable!("{name} is no number: {other:?}"),
    }
}

pub fn count_of(place: Place, name: &str) -> usize {
    usize::try_from(number(place, name)).unwrap_or(usize::MAX)
}

pub fn duration(place: Place, name: &str) -> Duration {
    Duration::from_millis(number(place, name))
}

pub fn flag(place: Place, name: &str) -> bool {
    matches!(default(place, name), Fallback::Flag(true))
}

pub fn text(place: Place, name: &str) -> &'static str {
    match default(place, name) {
        Fallback::Text(text) => text,
        other => unreachable!("{name} is no text: {other:?}"),
    }
}

/// The table in Markdown, as it stands in the manual.
pub fn reference() -> String {
    let mut out = String::new();
    for place in [
        Place::Top,
        Place::Upstream,
        Place::ClientKey,
        Place::RequestLog,
    ] {
        let _ = writeln!(out, "{}:\n", place.title());
        out.push_str("| key | value | default | meaning |\n|---|---|---|---|\n");
        for setting in place.settings() {
            let value = match setting.kind {
                Kind::Text => "text".to_owned(),
                Kind::Flag => "`true` or `false`".to_owned(),
                Kind::Number(unit, min, max) => format!("{min} to {max}{}", unit.name()),
                Kind::Choice(words) => format!("`{}`", words.join("`, `")),
                Kind::Texts => "list of texts".to_owned(),
                Kind::Pairs => "object of texts".to_owned(),
                Kind::Aliases => "object of lists".to_owned(),
                Kind::Upstreams => "list of objects".to_owned(),
                Kind::ClientKeys => "list".to_owned(),
                Kind::RequestLog => "object".to_owned(),
            };
            let default = match setting.default {
                Fallback::Number(number) => format!("`{number}`"),
                Fallback::Flag(flag) => format!("`{flag}`"),
                Fallback::Text(text) => format!("`{text}`"),
                Fallback::Words(words, _) => words.to_owned(),
                Fallback::Required(_) => "(required)".to_owned(),
            };
            let _ = writeln!(
                out,
                "| `{}` | {value} | {default} | {} |",
                setting.name, setting.meaning
            );
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

impl Unit {
    /// Behind a number, with the space between.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Count => "",
            Unit::Millis => " ms",
            Unit::Bytes => " bytes",
        }
    }
}

/// A config file to start from: every key with its meaning and default, and one upstream.
pub fn example() -> String {
    let mut out = String::from(
        "// A config file for weir to start from. Lines that begin with // are comments.\n{\n",
    );
    object(&mut out, Place::Top, 1);
    out.push_str("}\n");
    out
}

/// The members of an object. Keys whose default is not a value stand there as comments, except
/// that what is required and what makes the example work stand there for real.
fn object(out: &mut String, place: Place, depth: usize) {
    let indent = "  ".repeat(depth);
    // The last live member has no comma behind it.
    let last = place
        .settings()
        .filter(|setting| example_value(setting).1)
        .last()
        .map(|setting| setting.name);
    let mut said = "";
    for setting in place.settings() {
        if setting.meaning != said {
            let _ = writeln!(out, "{indent}// {}", setting.meaning);
        }
        said = setting.meaning;
        if setting.kind == Kind::Upstreams {
            let _ = writeln!(out, "{indent}\"{}\": [\n{indent}  {{", setting.name);
            object(out, Place::Upstream, depth + 2);
            let _ = writeln!(out, "{indent}  }}\n{indent}],");
            continue;
        }
        let (value, live) = example_value(setting);
        let slashes = if live { "" } else { "// " };
        let comma = if last == Some(setting.name) { "" } else { "," };
        let _ = writeln!(out, "{indent}{slashes}\"{}\": {value}{comma}", setting.name);
    }
}

/// The JSON of a key in the example, and whether it stands there for real.
fn example_value(setting: &Setting) -> (String, bool) {
    match setting.default {
        // Not for real where it makes a difference that the key is there at all.
        Fallback::Number(number) => (number.to_string(), setting.name != "first_byte_ms"),
        Fallback::Flag(flag) => (flag.to_string(), true),
        Fallback::Text(text) => (format!("{text:?}"), true),
        Fallback::Required(value) => (value.to_owned(), true),
        Fallback::Words(_, "") => match Place::Top.find(setting.name) {
            Some(top) => (example_value(top).0, false),
            None => ("null".to_owned(), false),
        },
        Fallback::Words(_, value) => (value.to_owned(), setting.name == "keys"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_stands_once_and_keeps_its_own_bounds() {
        for (at, setting) in SETTINGS.iter().enumerate() {
            let (place, name) = (setting.place, setting.name);
            let twin = SETTINGS[at + 1..]
                .iter()
                .find(|other| other.place == place && other.name == name);
            assert!(twin.is_none(), "{name} stands twice");
            if let (Kind::Number(unit, min, max), Fallback::Number(number)) =
                (setting.kind, setting.default)
            {
                assert!((min..=max).contains(&number), "{name}");
                assert_eq!(name.ends_with("_ms"), unit == Unit::Millis, "{name}");
                assert_eq!(name.ends_with("_bytes"), unit == Unit::Bytes, "{name}");
            }
            assert!(setting.meaning.ends_with('.'), "{name}");
            assert!(
                !setting.meaning.contains('|'),
                "{name} would break the table"
            );
        }
    }

    #[test]
    fn the_formats_are_those_of_this_build() {
        let known: Vec<_> = crate::provider::Format::ALL
            .iter()
            .map(|(name, _)| *name)
            .collect();
        assert_eq!(settings::FORMATS, known);
    }

    #[test]
    fn the_reference_names_every_key() {
        let reference = reference();
        for setting in SETTINGS {
            assert!(reference.contains(&format!("| `{}` |", setting.name)));
        }
        assert!(reference.contains("| `keepalive_ms` | 1 to 3600000 ms | `10000` |"));
        assert!(reference.ends_with("|\n"));
    }
}

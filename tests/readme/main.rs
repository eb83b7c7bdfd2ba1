//! The README and the manual, tried: every command in them is run, every output and every config is
//! held against what the built program does, and every link leads somewhere.
//!
//! A `sh` block that is one line and starts `weir` is a server; until its section ends, commands
//! that ask `localhost:8080` are led to it, and everywhere else to the demo that `make run`
//! starts. `make` only says what it would do. A `text` or `json` block right behind a `sh` block
//! is its output, with `…` for anything. A `json` block with upstreams is a config file; it must
//! pass `--check-config`, and a `sh` block right behind it finds it as `./weir.json`. What clients
//! are told is run by `make test-clients` in their own environments; here it is only made sure of
//! that it runs all of that.
//!
//! Needs curl. `UPDATE=1` writes the table of all config keys into the manual anew. `WEIR_BIN`
//! names another program to try than the one just built.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use page::{Block, between, blocks, fits};
use shell::{Server, Shell, is_server, make_only_says};

mod page;
mod shell;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const README: &str = "README.md";
const MANUAL: &str = "src/manual";
const REFERENCE: &str = "src/manual/config.md";
const BEGIN: &str = "<!-- config reference -->";
const END: &str = "<!-- end -->";

/// The languages in which clients are told something.
const OF_CLIENTS: &[&str] = &["bash", "js", "python"];

/// A page, by its path below the root.
struct Page {
    name: String,
    text: String,
}

impl Page {
    fn read(name: &str) -> Page {
        let text = fs::read_to_string(Path::new(ROOT).join(name));
        Page {
            name: name.to_owned(),
            text: text.unwrap_or_else(|error| panic!("{name}: {error}")),
        }
    }

    fn blocks(&self) -> Vec<Block> {
        blocks(&self.text)
    }

    /// Where its links lead, outside of blocks.
    fn links(&self) -> Vec<&str> {
        let outside = prose(&self.text);
        let pieces = outside.flat_map(|line| line.split("](").skip(1));
        pieces.filter_map(|piece| piece.split(')').next()).collect()
    }

    /// The names by which its headings can be linked to.
    fn headings(&self) -> Vec<String> {
        let headings = prose(&self.text).filter(|line| line.starts_with('#'));
        let kept = |letter: &char| letter.is_alphanumeric() || " -_".contains(*letter);
        let name = |line: &str| {
            let name: String = line
                .trim_start_matches(['#', ' '])
                .chars()
                .filter(kept)
                .collect();
            name.to_lowercase().replace(' ', "-")
        };
        headings.map(name).collect()
    }
}

/// The lines outside of blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    text.lines().filter(move |line| {
        let fence = line.starts_with("```");
        inside ^= fence;
        !inside && !fence
    })
}

/// The README, then the manual by name.
fn pages() -> Vec<Page> {
    let manual = fs::read_dir(Path::new(ROOT).join(MANUAL)).expect("there is a manual");
    let names = manual.map(|entry| entry.expect("a file").file_name());
    let names = names.map(|name| name.into_string().expect("a plain name"));
    let mut names: Vec<String> = names.map(|name| format!("{MANUAL}/{name}")).collect();
    names.sort_unstable();
    names.insert(0, README.into());
    names.iter().map(|name| Page::read(name)).collect()
}

fn has_curl() -> bool {
    let has = Command::new("curl").arg("--version").output().is_ok();
    if !has {
        // Past what is kept of a test that passes.
        let line = "SKIPPED: the README's commands need curl, which is not installed\n";
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    has
}

/// Runs every command of a page; tells how many lines that were, or what went wrong.
fn try_page(page: &str) -> Result<usize, String> {
    let shell = Shell::new();
    let demo = shell.serve("weir")?;
    let mut own: Option<(String, Server)> = None;
    let mut run = 0;
    let all = blocks(page);
    for (at, block) in all.iter().enumerate() {
        if own
            .as_ref()
            .is_some_and(|(section, _)| *section != block.section)
        {
            own = None;
        }
        if block.language != "sh" {
            continue;
        }
        let wrong = |what: String| Err(format!("line {}: {what}\n{}", block.line, block.text));
        run += block.lines().count();
        if is_server(&block.text) {
            match shell.serve(&block.text) {
                Ok(server) => own = Some((block.section.clone(), server)),
                Err(error) => return wrong(error),
            }
            continue;
        }
        let server = own.as_ref().map_or(&demo, |(_, server)| server);
        let script = make_only_says(&block.text).replace("localhost:8080", &server.address);
        let before = at.checked_sub(1).map(|before| &all[before]);
        let config = before.filter(|before| block.follows && before.is_config());
        let config = config.map_or("", |config| &config.text);
        if !config.is_empty() {
            shell.put_config(config);
        }
        let ended = shell.run(&script, config);
        shell.remove_config();
        if !ended.ok {
            return wrong(format!("failed: {}{}", ended.out, ended.err));
        }
        if let Some(shown) = output_of(&all, at)
            && !fits(shown, &ended.out)
        {
            return wrong(format!("does not print what is shown, but:\n{}", ended.out));
        }
    }
    Ok(run)
}

/// The block that shows what the command at `at` prints.
fn output_of(all: &[Block], at: usize) -> Option<&Block> {
    let next = all.get(at + 1)?;
    let shows = next.follows && !next.is_config() && ["text", "json"].contains(&&*next.language);
    shows.then_some(next)
}

#[test]
fn every_command_works_as_shown() {
    if !has_curl() {
        return;
    }
    let mut run = 0;
    let mut present = 0;
    for page in pages() {
        run += try_page(&page.text).unwrap_or_else(|wrong| panic!("{}: {wrong}", page.name));
        // Counted anew, by no code that runs them.
        let mut inside = false;
        for line in page.text.lines() {
            match line {
                "```sh" => inside = true,
                "```" => inside = false,
                _ => present += usize::from(inside && !line.trim().is_empty()),
            }
        }
    }
    assert!(present > 0);
    assert_eq!(run, present, "lines of commands run, and present");
}

#[test]
fn a_wrong_command_or_output_is_found() {
    if !has_curl() {
        return;
    }
    let pages = pages();
    for (right, wrong) in [
        ("8080/v1/chat/completions -d", "8080/v1/chat/completion -d"),
        (
            "\"gemini-3.8-flash\",\n  \"messages\"",
            "\"gemini-3.8-flas\",\n  \"messages\"",
        ),
        (
            "curl -sf -X POST localhost:8080/status/reset",
            "curl -sf localhost:8080/status/reset",
        ),
        ("your-key weir\n", "your-key weir --nonsense\n"),
        ("weir --check-config", "weir --check-configs"),
        ("x-weir-attempts: 4", "x-weir-attempts: 5"),
        ("\nmake lint\n", "\nmake lints\n"),
        ("\"total_tokens\": 20", "\"total_tokens\": 21"),
    ] {
        let mut with_it = pages.iter().filter(|page| page.text.contains(right));
        let page = with_it
            .next()
            .unwrap_or_else(|| panic!("no page has {right:?}"));
        // That it passes as it is, another test holds.
        let outcome = try_page(&page.text.replace(right, wrong));
        assert!(outcome.is_err(), "nobody noticed {wrong:?}");
    }
}

#[test]
fn every_block_is_of_a_kind_that_is_tried() {
    for page in pages() {
        let all = page.blocks();
        for (at, block) in all.iter().enumerate() {
            let place = format!("{} line {}", page.name, block.line);
            let known = match block.client {
                None => &["sh", "text", "json"],
                Some(_) => OF_CLIENTS,
            };
            assert!(
                known.contains(&&*block.language),
                "{place}: a block of {:?} for {:?}",
                block.language,
                block.client
            );
            // Nobody would run it there.
            let of_client = ["base_url", "api_base", "baseURL", "_API_KEY=any"]
                .iter()
                .any(|word| block.text.contains(word));
            let is_output = block.language == "text" && block.follows;
            let elsewhere = block.client.is_none() && !block.is_config() && !is_output;
            assert!(
                !(of_client && elsewhere),
                "{place}: what a client is told, not marked as such"
            );
            // Without --fail, curl ends well whatever it is told.
            if block.language == "sh" && block.text.contains("curl") {
                let checked = output_of(&all, at).is_some() || block.text.contains("curl -sf");
                assert!(checked, "{place}: the answer goes unchecked");
            }
        }
    }
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let mut links = 0;
    for page in &pages {
        let folder = Path::new(&page.name).parent().expect("a file's folder");
        for link in page.links() {
            links += 1;
            if link.starts_with("https://") {
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let path = match path {
                "" => page.name.clone(),
                path => plain(&folder.join(path)),
            };
            let there = Path::new(ROOT).join(&path).exists();
            assert!(there, "{}: {link} leads to no file", page.name);
            if !heading.is_empty() {
                let target = pages.iter().find(|page| page.name == path);
                let known =
                    target.is_some_and(|page| page.headings().contains(&heading.to_owned()));
                assert!(known, "{}: {link} leads to no heading", page.name);
            }
        }
    }
    assert!(links > 20, "{links}");
    // And every page of the manual is linked from the README.
    for page in &pages[1..] {
        let linked = pages[0]
            .links()
            .iter()
            .any(|link| link.starts_with(&*page.name));
        assert!(linked, "the README does not lead to {}", page.name);
    }
}

/// `src/manual/../../LICENSE` -> `LICENSE`.
fn plain(path: &Path) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.to_str().expect("plain names").split('/') {
        match part {
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[test]
fn the_readme_is_read_in_one_sitting() {
    let readme = Page::read(README);
    let (bytes, lines) = (readme.text.len(), readme.text.lines().count());
    assert!(
        bytes <= 12 * 1024 && lines <= 260,
        "{bytes} bytes, {lines} lines"
    );
}

#[test]
fn what_each_client_is_told_is_run_by_the_clients_own_tests() {
    let pages = pages();
    let mut told: Vec<String> = Vec::new();
    let mut clients: Vec<String> = Vec::new();
    let mut marks = 0;
    for page in &pages {
        for block in page.blocks() {
            if let Some(client) = &block.client {
                told.push(format!(
                    "{} {} {} {client}",
                    page.name, block.line, block.language
                ));
                clients.push(client.clone());
            }
        }
        marks += page.text.matches("<!-- client: ").count();
    }
    assert!(!told.is_empty());
    assert_eq!(marks, told.len());
    let run = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/run.py");
    let table = fs::read_to_string(run).expect("there are tests of clients");
    let table = between(&table, "CLIENTS = {", "}").expect("the table of clients");
    let names = table
        .lines()
        .filter_map(|line| line.trim().strip_prefix('"')?.split_once('"'));
    let mut names: Vec<&str> = names.map(|(name, _)| name).collect();
    names.sort_unstable();
    clients.sort_unstable();
    clients.dedup();
    assert_eq!(clients, names, "clients told, and clients tested");
    let Ok(list) = Command::new("python3").args([run, "--readme"]).output() else {
        println!("not held against tests/clients: python3 is not installed");
        return;
    };
    assert!(list.status.success(), "{list:?}");
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert_eq!(list.lines().collect::<Vec<_>>(), told);
}

#[test]
fn every_config_is_a_good_one() {
    let shell = Shell::new();
    let mut configs = 0;
    for page in pages() {
        for config in page.blocks().iter().filter(|block| block.is_config()) {
            configs += 1;
            shell.put_config(&config.text);
            let ended = shell.run("weir --check-config", &config.text);
            assert!(
                ended.ok,
                "{} line {}: {}",
                page.name, config.line, ended.err
            );
        }
    }
    assert!(configs >= 4, "{configs}");
}

#[test]
fn the_reference_is_the_programs_own() {
    let ended = Shell::new().run("weir --print reference", "");
    assert!(ended.ok, "{}", ended.err);
    let page = Page::read(REFERENCE);
    let written = between(&page.text, BEGIN, END).expect("both marks stand in the manual");
    if written == ended.out {
        return;
    }
    assert!(
        std::env::var_os("UPDATE").is_some(),
        "the manual's table of keys is not what `weir --print reference` prints; UPDATE=1 mends it"
    );
    let old = format!("{BEGIN}\n{written}{END}\n");
    let new = format!("{BEGIN}\n{}{END}\n", ended.out);
    let path = Path::new(ROOT).join(REFERENCE);
    fs::write(path, page.text.replace(&old, &new)).expect("the manual can be written");
}

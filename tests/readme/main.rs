//! The README, tried: every command in it is run, every output and every config in it is held
//! against what the built program does.
//!
//! A `sh` block that is one line and starts `weir` is a server; until its section ends, commands
//! that ask `localhost:8080` are led to it, and everywhere else to the demo that `make run`
//! starts. `make` only says what it would do. A `text` or `json` block right behind a `sh` block
//! is its output, with `…` for anything. A `json` block with upstreams is a config file; it must
//! pass `--check-config`, and a `sh` block right behind it finds it as `./weir.json`. What clients
//! are told is run by `make test-clients` in their own environments; here it is only made sure of
//! that it runs all of that.
//!
//! Needs curl. `UPDATE=1` writes the table of all config keys into the README anew. `WEIR_BIN`
//! names another program to try than the one just built.

use std::fs;
use std::io::Write;
use std::process::Command;

use page::{Block, between, blocks, fits};
use shell::{Server, Shell, is_server, make_only_says};

mod page;
mod shell;

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
const BEGIN: &str = "<!-- config reference -->";
const END: &str = "<!-- end -->";

/// The languages in which clients are told something.
const OF_CLIENTS: &[&str] = &["bash", "js", "python"];

fn readme() -> String {
    fs::read_to_string(README).expect("there is a README")
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
fn try_page(readme: &str) -> Result<usize, String> {
    let shell = Shell::new();
    let demo = shell.serve("weir")?;
    let mut own: Option<(String, Server)> = None;
    let mut run = 0;
    let all = blocks(readme);
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
        let wrong = |what: String| {
            Err(format!(
                "README line {}: {what}\n{}",
                block.line, block.text
            ))
        };
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
    let readme = readme();
    let run = try_page(&readme).unwrap_or_else(|wrong| panic!("{wrong}"));
    // Counted anew, by no code that runs them.
    let mut inside = false;
    let mut present = 0;
    for line in readme.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            _ => present += usize::from(inside && !line.trim().is_empty()),
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
    let readme = readme();
    // A page that fails anyway would prove nothing.
    try_page(&readme).unwrap_or_else(|wrong| panic!("{wrong}"));
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
        assert!(readme.contains(right), "{right}");
        let broken = readme.replace(right, wrong);
        let outcome = try_page(&broken);
        assert!(outcome.is_err(), "nobody noticed {wrong:?}");
    }
}

#[test]
fn every_block_is_of_a_kind_that_is_tried() {
    let readme = readme();
    let all = blocks(&readme);
    for (at, block) in all.iter().enumerate() {
        let known = match block.client {
            None => &["sh", "text", "json"],
            Some(_) => OF_CLIENTS,
        };
        assert!(
            known.contains(&&*block.language),
            "line {}: a block of {:?} for {:?}",
            block.line,
            block.language,
            block.client
        );
        // Nobody would run it there.
        let of_client = ["base_url", "api_base", "baseURL", "_API_KEY=any"]
            .iter()
            .any(|word| block.text.contains(word));
        let elsewhere = block.client.is_none() && !block.is_config();
        assert!(
            !(of_client && elsewhere),
            "line {}: what a client is told, not marked as such",
            block.line
        );
        // Without --fail, curl ends well whatever it is told.
        if block.language == "sh" && block.text.contains("curl") {
            let checked = output_of(&all, at).is_some() || block.text.contains("curl -sf");
            assert!(checked, "line {}: the answer goes unchecked", block.line);
        }
    }
}

#[test]
fn what_each_client_is_told_is_run_by_the_clients_own_tests() {
    let readme = readme();
    let all = blocks(&readme);
    let mut told: Vec<String> = Vec::new();
    for block in &all {
        if let Some(client) = &block.client {
            told.push(format!("{} {} {client}", block.line, block.language));
        }
    }
    assert!(!told.is_empty());
    assert_eq!(readme.matches("<!-- client: ").count(), told.len());
    let run = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/run.py");
    let table = fs::read_to_string(run).expect("there are tests of clients");
    let table = between(&table, "CLIENTS = {", "}").expect("the table of clients");
    let names = table
        .lines()
        .filter_map(|line| line.trim().strip_prefix('"')?.split_once('"'));
    let mut names: Vec<&str> = names.map(|(name, _)| name).collect();
    let mut clients: Vec<&str> = all
        .iter()
        .filter_map(|block| block.client.as_deref())
        .collect();
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
    let readme = readme();
    let all = blocks(&readme);
    let configs: Vec<_> = all.iter().filter(|block| block.is_config()).collect();
    assert!(configs.len() >= 2, "{configs:?}");
    let shell = Shell::new();
    for config in configs {
        shell.put_config(&config.text);
        let ended = shell.run("weir --check-config", &config.text);
        assert!(ended.ok, "line {}: {}", config.line, ended.err);
    }
}

#[test]
fn the_reference_is_the_programs_own() {
    let ended = Shell::new().run("weir --print reference", "");
    assert!(ended.ok, "{}", ended.err);
    let readme = readme();
    let written = between(&readme, BEGIN, END).expect("both marks stand in the README");
    if written == ended.out {
        return;
    }
    assert!(
        std::env::var_os("UPDATE").is_some(),
        "the README's table of keys is not what `weir --print reference` prints; UPDATE=1 mends it"
    );
    let old = format!("{BEGIN}\n{written}{END}\n");
    let new = format!("{BEGIN}\n{}{END}\n", ended.out);
    fs::write(README, readme.replace(&old, &new)).expect("the README can be written");
}

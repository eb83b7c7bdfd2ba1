//! The command line as a shell sees it: what goes to which output, and the exit code.
//!
//! The `.json` files beside this one must be refused; the unit tests of `config` compare each
//! message, and here the built program is asked about some of them.

use std::process::{Command, Output};

/// Runs weir in the folder of the test configs, with `vars` as its whole environment.
fn weir(args: &[&str], vars: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(args)
        .env_clear()
        .envs(vars.iter().copied())
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config"))
        .output()
        .expect("the program starts")
}

/// Exit code, standard output, standard error.
fn told(args: &[&str], vars: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let output = weir(args, vars);
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn help_and_version_are_fine() {
    let (code, out, err) = told(&["--help"], &[]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("--check-config"), "{out}");
    let (code, out, err) = told(&["--version"], &[]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(out, format!("weir {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_leaves_with_2() {
    for args in [
        &["--nonsense"][..],
        &["word"],
        &["--config"],
        &["--listen", "nowhere"],
        &["--config", "none.json"],
        &["--print", "nonsense"],
    ] {
        let (code, out, err) = told(args, &[("OPENAI_API_KEY", "k")]);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{args:?}");
        assert!(err.starts_with("weir: "), "{args:?}: {err}");
    }
    let (_, _, err) = told(&["--print", "nonsense"], &[]);
    assert!(
        err.contains("known: config, reference, models, systemd"),
        "{err}"
    );
}

#[test]
fn a_check_tells_every_finding_or_the_routes() {
    let (code, out, err) = told(&["--config", "bounds.json", "--check-config"], &[]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    let expected: String = include_str!("bounds.expected")
        .lines()
        .map(|line| format!("weir: bounds.json: {line}\n"))
        .collect();
    assert_eq!(err, expected);

    let (code, out, err) = told(&["--check-config"], &[("GEMINI_API_KEY", "very-secret")]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(
        out.contains("  gemini-2.5-pro -> gemini/gemini-2.5-pro\n"),
        "{out}"
    );
    assert!(
        !out.contains("very-secret") && !out.contains("gpt-5"),
        "{out}"
    );

    let (code, out, _) = told(&["--check-config"], &[]);
    assert_eq!(code, Some(0));
    assert!(out.contains("  gpt-5 -> demo-openai/gpt-5\n"), "{out}");
}

#[test]
fn the_printed_config_is_one_to_start_from() {
    let (code, printed, err) = told(&["--print", "config"], &[]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let path = std::env::temp_dir().join(format!("weir-printed-{}.json", std::process::id()));
    std::fs::write(&path, printed).expect("the folder for temporary files can be written");
    let file = path.to_str().expect("a plain path");
    let args = ["--config", file, "--check-config"];
    let (with_key, ..) = told(&args, &[("GEMINI_API_KEY", "k")]);
    let (without, _, err) = told(&args, &[]);
    let _ = std::fs::remove_file(&path);
    assert_eq!((with_key, without), (Some(0), Some(2)));
    let finding = "upstreams[0].keys[0]: environment variable `GEMINI_API_KEY` is not set\n";
    assert_eq!(err, format!("weir: {file}: {finding}"));
}

"""What weir's tables of models lack, by `weir --print models`.

    models.py old [DAYS]   the rows that were checked longer ago than that (90)
    models.py unknown      the models that the newest SDKs name and that no row fits

Either only prints: a table that ages is no failed test. `unknown` installs the newest SDKs under
target/clients/newest, once a day.
"""

import datetime
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
NEWEST = ROOT / "target" / "clients" / "newest"
DAY = 86400

# Package -> the files of it that list models, as a pattern.
SDKS = {
    "openai": "openai/types/shared/chat_model.py",
    "anthropic": "anthropic/types/model.py",
    "google-genai": "google/genai/**/*model*.py",
}
NAME = re.compile(r'"((?:gpt|chat|claude|gemini|gemma|nano-banana|o\d|codex)[a-z0-9.-]*\d[a-z0-9.-]*|chat-latest)"')
# They do not chat, or not over the paths that weir translates.
OTHERS = ("embedding", "live", "native-audio", "realtime", "transcribe", "deep-research", "lyria")


def rows(weir):
    """(vendor, day, prefix, source) of each row."""
    done = subprocess.run([weir, "--print", "models"], stdout=subprocess.PIPE, text=True, check=True)
    return [tuple(line.split(None, 3)) for line in done.stdout.splitlines()]


def old(rows, days, today):
    oldest = today - datetime.timedelta(days=days)
    return [row for row in rows if datetime.date.fromisoformat(row[1]) < oldest]


def unknown(rows, names):
    prefixes = tuple(prefix for _, _, prefix, _ in rows)
    chats = [name for name in names if not any(word in name for word in OTHERS)]
    return [name for name in chats if not name.startswith(prefixes)]


def names(folder, pattern):
    """The names of models in these files, each once."""
    found = {}
    for file in sorted(folder.glob(pattern)):
        found.update(dict.fromkeys(NAME.findall(file.read_text(errors="replace"))))
    return list(found)


def install():
    """The newest SDKs, unless they were installed today."""
    mark = NEWEST / "installed"
    if mark.is_file() and time.time() - mark.stat().st_mtime < DAY:
        return
    NEWEST.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--root-user-action=ignore"]
    # Nothing of them is run, so what they need is not needed.
    command += ["--no-deps", "--upgrade", "--target", str(NEWEST), *SDKS]
    subprocess.run(command, check=True, timeout=300, stdout=subprocess.DEVNULL)
    mark.touch()


def compare(weir):
    """Prints what no row fits. Never fails: there may be no way to the packages."""
    try:
        install()
        known = rows(weir)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"the newest SDKs' models were not compared: {error}")
        return
    for package, pattern in SDKS.items():
        listed = names(NEWEST, pattern)
        missing = unknown(known, listed)
        print(f"{package}: {len(listed)} models named, {len(missing)} that no row fits")
        for name in missing:
            print(f"    {name}")


def main(arguments):
    weir = ROOT / "target" / "debug" / "weir"
    match arguments:
        case ["old", *days]:
            days = int(days[0]) if days else 90
            late = old(rows(weir), days, datetime.date.today())
            for row in late:
                print("  ".join(row))
            print(f"{len(late)} rows were checked more than {days} days ago")
        case ["unknown"]:
            compare(weir)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])

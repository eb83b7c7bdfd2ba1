//! The object `request_log`.

use super::Ground;
use crate::config::findings::Findings;
use crate::config::read::Object;
use crate::config::table::{self, Place};
use crate::request_log::Settings;

pub fn read(top: &Object<'_>, ground: &Ground<'_>, findings: &mut Findings) -> Option<Settings> {
    let node = top.get("request_log")?;
    let object = Object::open(Place::RequestLog, "request_log", node, findings)?;
    let number = |name: &str| {
        object
            .number(name)
            .unwrap_or_else(|| table::number(Place::RequestLog, name))
    };
    Some(Settings {
        folder: ground.folder.join(object.text("folder")?),
        max_files: usize::try_from(number("max_files")).unwrap_or(usize::MAX),
        max_bytes: number("max_bytes"),
    })
}

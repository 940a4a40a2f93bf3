//! Gives inputs to a target, without a fuzzer: `cargo run --no-default-features --example replay -- TARGET FILE|FOLDER…`, in
//! `fuzz/`. Called by `cargo xtask fuzz --coverage`, and by people who follow a crash with a debugger.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use tollgate_fuzz::{control, engine, list, packet, policy, request};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args_os().skip(1);
    let name = arguments.next().unwrap_or_default();
    let target = match name.to_str() {
        Some("control") => control::run,
        Some("engine") => engine::run,
        Some("list") => list::run,
        Some("request") => request::run,
        Some("packet") => packet::run,
        Some("policy") => policy::run,
        _ => return Err(format!("{name:?} is no target").into()),
    };
    for path in arguments {
        for file in files(Path::new(&path))? {
            target(&fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?);
        }
    }
    Ok(())
}

/// The file, or those in the folder.
fn files(path: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files =
        fs::read_dir(path)?.map(|file| Ok(file?.path())).collect::<Result<Vec<_>, std::io::Error>>()?;
    files.sort();
    Ok(files)
}

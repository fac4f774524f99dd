//! Models in several files: `PREFIX-00001-of-00003.gguf` and so on.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::file::GgufFile;
use crate::error::{FormatError, Result};

const NUMBER_KEY: &str = "split.no";
const COUNT_KEY: &str = "split.count";
const TENSORS_KEY: &str = "split.tensors.count";

/// Opens the other files of the model whose first file this is; none when it is not split.
pub(super) fn open_rest(first: &GgufFile) -> Result<Vec<GgufFile>> {
    let count = number(first, COUNT_KEY)?.unwrap_or(0);
    if count < 2 {
        return Ok(Vec::new());
    }
    let paths = part_paths(first.path(), count)?;
    check_number(first, 0, Some(&paths[0]))?;
    let mut rest = Vec::new();
    for (i, path) in paths.iter().enumerate().skip(1) {
        if !path.exists() {
            return Err(FormatError::Split {
                path: path.clone(),
                found: "no such file".into(),
                expected: format!("part {} of {count}", i + 1),
                advice: format!("put it beside {}", first.path().display()),
            });
        }
        let part = GgufFile::open(path)?;
        check_number(&part, i as u64, None)?;
        let found = number(&part, COUNT_KEY)?;
        if found != Some(count) {
            return Err(foreign(&part, COUNT_KEY, found, count));
        }
        rest.push(part);
    }
    check_tensors(first, &rest)?;
    Ok(rest)
}

/// The value of a split key, of whatever integer type.
fn number(file: &GgufFile, key: &str) -> Result<Option<u64>> {
    match file.value(key) {
        None => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or_else(|| FormatError::Split {
            path: file.path().into(),
            found: format!("{value:?} as {key}"),
            expected: "a whole number of at least 0".into(),
            advice: "split the model again".into(),
        }),
    }
}

/// All parts, from the path of the first.
fn part_paths(first: &Path, count: u64) -> Result<Vec<PathBuf>> {
    let suffix = |i: u64| format!("-{i:05}-of-{count:05}.gguf");
    // The number in the name decides the prefix; whether it is the first part is said by the key.
    let prefix = first.file_name().and_then(|name| name.to_str()).and_then(|name| {
        let (prefix, number) = name.strip_suffix(&format!("-of-{count:05}.gguf"))?.rsplit_once('-')?;
        (number.len() == 5 && number.bytes().all(|b| b.is_ascii_digit())).then_some(prefix)
    });
    // Five digits, and the key is 16 bits wide in what writers do.
    let (Some(prefix), true) = (prefix, count <= u64::from(u16::MAX)) else {
        return Err(FormatError::Split {
            path: first.into(),
            found: format!("this name for a part of a model in {count} files"),
            expected: format!("a name like MODEL{}", suffix(1)),
            advice: "give the file back the name it was made with".into(),
        });
    };
    Ok((1..=count).map(|i| first.with_file_name(format!("{prefix}{}", suffix(i)))).collect())
}

/// Part `expected` (from 0) must say so; `first_path` is for the advice where the first one was to be given.
fn check_number(part: &GgufFile, expected: u64, first_path: Option<&Path>) -> Result<()> {
    let found = number(part, NUMBER_KEY)?;
    if found == Some(expected) {
        return Ok(());
    }
    match (found, first_path) {
        (Some(n), Some(path)) => Err(FormatError::Split {
            path: part.path().into(),
            found: format!("part {} of a split model", n.saturating_add(1)),
            expected: "its first part".into(),
            advice: format!("open {}", path.display()),
        }),
        _ => Err(foreign(part, NUMBER_KEY, found, expected)),
    }
}

fn foreign(part: &GgufFile, key: &str, found: Option<u64>, expected: u64) -> FormatError {
    FormatError::Split {
        path: part.path().into(),
        found: found.map_or_else(|| format!("no key {key}"), |n| format!("{key} = {n}")),
        expected: format!("{key} = {expected}"),
        advice: "the files do not belong together: get them again".into(),
    }
}

/// No name twice over all parts, and as many as the first part announces.
fn check_tensors(first: &GgufFile, rest: &[GgufFile]) -> Result<()> {
    let mut holders: HashMap<&str, &Path> = HashMap::new();
    for part in std::iter::once(first).chain(rest) {
        for tensor in part.tensors() {
            if let Some(other) = holders.insert(&tensor.name, part.path()) {
                return Err(FormatError::Split {
                    path: part.path().into(),
                    found: format!("tensor '{}', which {} holds too", tensor.name, other.display()),
                    expected: "every tensor in one part only".into(),
                    advice: "the files do not belong together: get them again".into(),
                });
            }
        }
    }
    match number(first, TENSORS_KEY)? {
        Some(announced) if announced != holders.len() as u64 => Err(FormatError::Split {
            path: first.path().into(),
            found: format!("{} tensors in all parts", holders.len()),
            expected: format!("{announced}, as {TENSORS_KEY} says"),
            advice: "the files do not belong together: get them again".into(),
        }),
        _ => Ok(()),
    }
}

//! Models from a hub (Hugging Face's, or one that speaks as it does): the files of a model by its name, `org/name`, or one
//! of its files, `org/name/model.gguf`, or `org/name/weights-audio.pth` of a model of bytes.
//!
//! Files are fetched into a directory of their own for each version of a model. What was fetched in part is gone on with, and
//! what is whole is not fetched again; a file has its name only when it is whole, and of the SHA-256 that the hub says of it
//! (it says none of small text files).

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use ureq::Agent;

use super::Progress;
use crate::host::{Disk, DiskFile, OpenMode, RealDisk};
use crate::volume::TENSORS_ENDS;

/// The hub that is asked where nobody says another.
const ENDPOINT: &str = "https://huggingface.co";
/// Longest answers but for models themselves, bytes: lists of files have some 100 bytes for each.
const LIST_BYTES_MAX: u64 = 16 << 20;
/// Files of a model, and the longest name of one.
const FILES_MAX: usize = 1024;
const NAME_BYTES_MAX: usize = 200;
/// Bytes that are fetched in one step.
const STEP_BYTES: usize = 1 << 20;
/// A connection is waited for, its answer, and its body. A body that takes longer is gone on with in another.
const CONNECT_MAX: Duration = Duration::from_secs(20);
const ANSWER_MAX: Duration = Duration::from_secs(60);
const BODY_MAX: Duration = Duration::from_secs(600);
/// How the files end that are a model of text alone.
const GGUF: &str = ".gguf";
/// How the name of a file ends that is not there as a whole.
const PART: &str = ".part";

/// What a model is called on a hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubName {
    /// `org/name`.
    repository: String,
    /// One of its files.
    file: Option<String>,
}

/// True for what names on a hub, and of files that are fetched, are made of.
fn is_plain(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.starts_with('.') && name.chars().all(good)
}

/// True for files that are a model alone: of text, or of images or bytes.
fn is_model(file: &str) -> bool {
    file.ends_with(GGUF) || TENSORS_ENDS.iter().any(|end| file.ends_with(end))
}

impl HubName {
    /// The name that a text is; `None` where it can be none.
    pub fn parse(text: &str) -> Option<HubName> {
        let parts: Vec<&str> = text.split('/').collect();
        let (organisation, name, file) = match parts.as_slice() {
            [organisation, name] => (organisation, name, None),
            [organisation, name, file] if is_model(file) => (organisation, name, Some(file.to_string())),
            _ => return None,
        };
        parts.iter().all(|part| is_plain(part)).then(|| HubName { repository: format!("{organisation}/{name}"), file })
    }
}

/// A model that was fetched.
#[derive(Debug)]
pub struct Fetched {
    /// The only file, or the directory of a checkpoint.
    pub path: PathBuf,
    cache: PathBuf,
    home: String,
}

impl Fetched {
    /// Removes what was fetched, of all versions.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self) -> Result<(), String> {
        let remove = || RealDisk::open(&self.cache, false)?.remove_dir_all(&self.home);
        remove().map_err(|e| format!("{}: {e}", self.cache.join(&self.home).display()))
    }
}

/// A hub, and where files from it are kept.
#[derive(Clone, Debug)]
pub struct Hub {
    endpoint: String,
    token: Option<String>,
    cache: PathBuf,
}

/// A file of a model on a hub.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    name: String,
    /// Where the hub says it.
    bytes: Option<u64>,
    /// Of large files, in hexadecimal: the hub keeps them by it.
    sha256: Option<String>,
}

/// Which files a model is loaded from: one of GGUF, or a checkpoint's, of which the index says more where there is one.
fn choose(listed: &[Listed], wanted: &HubName) -> Result<Vec<Listed>, String> {
    let find = |name: &str| listed.iter().find(|file| file.name == name).cloned();
    let those =
        |is: &dyn Fn(&str) -> bool| -> Vec<Listed> { listed.iter().filter(|file| is(&file.name)).cloned().collect() };
    let names = |files: &[Listed]| files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>().join(", ");
    let ggufs = those(&|name| name.ends_with(GGUF));
    let HubName { repository, file } = wanted;
    if let Some(file) = file {
        let none =
            || format!("{repository} has no file {file} on the hub; of models it has: {}", names(&those(&is_model)));
        return find(file).map(|file| vec![file]).ok_or_else(none);
    }
    let tensors = find("model.safetensors.index.json").or(find("model.safetensors"));
    if let (Some(config), Some(tokenizer), Some(tensors)) = (find("config.json"), find("tokenizer.json"), tensors) {
        return Ok(vec![config, tokenizer, tensors]);
    }
    match ggufs.as_slice() {
        [one] => Ok(vec![one.clone()]),
        [] => Err(format!(
            "{repository} has on the hub neither a GGUF file nor config.json, tokenizer.json and model.safetensors; a file of a model of \
             images or bytes is named itself, {repository}/FILE"
        )),
        _ => Err(format!(
            "{repository} has several GGUF files on the hub: say which as {repository}/FILE, of {}",
            names(&ggufs)
        )),
    }
}

impl Hub {
    /// The hub that the environment says, as all programs of it do: `HF_ENDPOINT`, and `HF_TOKEN` for models that not everybody
    /// may have. Files are kept in the user's cache.
    ///
    /// # Errors
    /// When there is no place for a cache.
    pub fn of_environment() -> Result<Hub, String> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let home = || set("HOME").map(|home| format!("{home}/.cache"));
        let Some(cache) = set("XDG_CACHE_HOME").or_else(home) else {
            return Err("there is no place for files from a hub: set HOME or XDG_CACHE_HOME".into());
        };
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into());
        Ok(Hub::new(&endpoint, set("HF_TOKEN"), &Path::new(&cache).join("tersefs/hub")))
    }

    /// A hub by its address. Files from it are kept in `cache`.
    pub fn new(endpoint: &str, token: Option<String>, cache: &Path) -> Hub {
        Hub { endpoint: endpoint.trim_end_matches('/').to_string(), token, cache: cache.to_path_buf() }
    }

    /// Fetches a model. Told: bytes there, of how many that are known of.
    ///
    /// # Errors
    /// A sentence: what was asked for, why it is not to be had, and what to do.
    ///
    /// # Durability
    /// What is whole is on disk at return.
    ///
    /// # Blocking
    /// As long as the network takes.
    pub fn fetch(&self, name: &HubName, progress: Progress<'_>) -> Result<Fetched, String> {
        let mut config = Agent::config_builder();
        if ["http://127.0.0.1", "http://localhost"].iter().any(|here| self.endpoint.starts_with(here)) {
            // A hub on this machine is not behind a proxy that the environment names.
            config = config.proxy(None);
        }
        let config = config
            .timeout_connect(Some(CONNECT_MAX))
            .timeout_recv_response(Some(ANSWER_MAX))
            .timeout_recv_body(Some(BODY_MAX))
            .http_status_as_error(false)
            .user_agent(concat!("tersefs/", env!("CARGO_PKG_VERSION")))
            .build();
        let agent = Agent::from(config);
        let repository = &name.repository;
        let url = format!("{}/api/models/{repository}/revision/main?blobs=true", self.endpoint);
        let list = self.text(&agent, &url, repository)?;
        let malformed = || format!("{url} answered something that is no list of files: is it a hub of models?");
        let list: Json = serde_json::from_str(&list).map_err(|_| malformed())?;
        let version = list.get("sha").and_then(Json::as_str).filter(|sha| is_plain(sha)).ok_or_else(malformed)?;
        let listed: Vec<Listed> = list
            .get("siblings")
            .and_then(Json::as_array)
            .ok_or_else(malformed)?
            .iter()
            .filter_map(|file| {
                let name = file.get("rfilename")?.as_str().filter(|name| is_plain(name) && !name.ends_with(PART))?;
                Some(Listed {
                    name: name.to_string(),
                    bytes: file.get("size").and_then(Json::as_u64),
                    sha256: file.get("lfs").and_then(|lfs| Some(lfs.get("sha256")?.as_str()?.to_ascii_lowercase())),
                })
            })
            .collect();
        let mut files = choose(&listed, name)?;

        let home = repository.replace('/', "--");
        let directory = self.cache.join(&home).join(version);
        let failed = |e: std::io::Error| format!("{}: {e}", directory.display());
        let disk = RealDisk::open(&directory, true).map_err(failed)?;
        if let Some(at) = files.iter().position(|file| file.name.ends_with(".index.json")) {
            let index = files.remove(at);
            self.file(&agent, repository, version, &index, &*disk, &mut |_| ())?;
            let file = disk.open(&index.name, OpenMode::Read).map_err(failed)?;
            let mut bytes = vec![0; file.len().map_err(failed)?.min(LIST_BYTES_MAX) as usize];
            let got = file.read_at(&mut bytes, 0).map_err(failed)?;
            let parts = parts(bytes.get(..got).unwrap_or_default());
            let parts = parts.ok_or_else(|| format!("{} of {repository} names no files beside it", index.name))?;
            for part in parts {
                let file = listed.iter().find(|file| file.name == part).cloned();
                files.push(
                    file.ok_or_else(|| format!("{repository} has no file {part} on the hub, which its index names"))?,
                );
            }
        }
        let total = files.iter().filter_map(|file| file.bytes).sum();
        let mut before = 0;
        for file in &files {
            before +=
                self.file(&agent, repository, version, file, &*disk, &mut |bytes| progress(before + bytes, total))?;
        }
        let path = match files.as_slice() {
            [one] => directory.join(&one.name),
            _ => directory,
        };
        Ok(Fetched { path, cache: self.cache.clone(), home })
    }

    /// Asks for something from a byte on.
    fn ask(
        &self,
        agent: &Agent,
        url: &str,
        repository: &str,
        from: u64,
    ) -> Result<ureq::http::Response<ureq::Body>, String> {
        let mut request = agent.get(url);
        if let Some(token) = &self.token {
            // Goes to the hub alone: it is left out where the hub sends us elsewhere.
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        let response = request.call().map_err(|e| {
            format!(
                "`{repository}` is no file or directory here, and a hub could not be asked for it: {url}: {e}. Without a network, \
                 give the path of a GGUF file or of the directory of a checkpoint"
            )
        })?;
        match response.status().as_u16() {
            200 | 206 => Ok(response),
            401 | 403 => Err(format!(
                "{url}: the hub has no such model for everybody: where it asks for consent, give that there, and set HF_TOKEN to \
                 a token of the account"
            )),
            404 => Err(format!("{url}: the hub has no such model or file")),
            429 => Err(format!("{url}: the hub was asked too often; try later, or set HF_TOKEN")),
            status => Err(format!("{url}: the hub answered {status}")),
        }
    }

    fn text(&self, agent: &Agent, url: &str, repository: &str) -> Result<String, String> {
        let mut response = self.ask(agent, url, repository, 0)?;
        let text = response.body_mut().with_config().limit(LIST_BYTES_MAX).read_to_string();
        text.map_err(|e| format!("{url}: {e}"))
    }

    /// Fetches a file unless it is there; gives its length. Told of bytes there.
    fn file(
        &self,
        agent: &Agent,
        repository: &str,
        version: &str,
        file: &Listed,
        disk: &dyn Disk,
        told: &mut dyn FnMut(u64),
    ) -> Result<u64, String> {
        let name = &file.name;
        let url = format!("{}/{repository}/resolve/{version}/{name}", self.endpoint);
        let failed = |e: std::io::Error| format!("{name}: {e}");
        if let Ok(whole) = disk.open(name, OpenMode::Read) {
            return whole.len().map_err(failed);
        }
        let part = format!("{name}{PART}");
        let target = disk.open(&part, OpenMode::Create).map_err(failed)?;
        let mut at = target.len().map_err(failed)?;
        if file.bytes.is_some_and(|bytes| at > bytes) {
            target.set_len(0).map_err(failed)?;
            at = 0;
        }
        let mut buffer = vec![0; STEP_BYTES];
        // Every round comes further than all before it, or is the last.
        let mut furthest = at;
        while file.bytes.is_none_or(|bytes| at < bytes) {
            let mut response = self.ask(agent, &url, repository, at)?;
            if response.status().as_u16() != 206 && at > 0 {
                target.set_len(0).map_err(failed)?;
                at = 0;
            }
            let end = response.body().content_length().map(|bytes| at.saturating_add(bytes));
            let mut body = response.body_mut().with_config().limit(u64::MAX).reader();
            let broken = loop {
                match body.read(&mut buffer) {
                    Ok(0) => break None,
                    Ok(got) if file.bytes.is_some_and(|bytes| at + got as u64 > bytes) => {
                        let said = file.bytes.unwrap_or(0);
                        disk.remove(&part).map_err(failed)?;
                        return Err(format!("{url}: it has more than the {said} bytes that the hub says: try again"));
                    }
                    Ok(got) => {
                        target.write_at(buffer.get(..got).unwrap_or_default(), at).map_err(failed)?;
                        at += got as u64;
                        told(at);
                    }
                    Err(e) => break Some(e.to_string()),
                }
            };
            let short = end.filter(|end| at < *end).map(|end| format!("it ended after {at} of {end} bytes"));
            match broken.or(short) {
                None => break,
                Some(_) if at > furthest => furthest = at,
                Some(what) => return Err(format!("{url}: {what}; the same command goes on from there")),
            }
        }
        if let Some(bytes) = file.bytes.filter(|bytes| *bytes != at) {
            // An answer that was whole, and is something else.
            disk.remove(&part).map_err(failed)?;
            return Err(format!("{url}: it has {at} bytes, and the hub says {bytes}: try again"));
        }
        if let Some(said) = &file.sha256 {
            let found = sha256(&*target).map_err(failed)?;
            if found != *said {
                // Going on from what is wrong would never come to its end.
                drop(target);
                disk.remove(&part).map_err(failed)?;
                return Err(format!(
                    "{url}: what came has the SHA-256 {found}, and the hub says {said}: it was changed on its way. It is \
                     removed; try again"
                ));
            }
        }
        target.sync_data().and_then(|()| disk.rename(&part, name)).and_then(|()| disk.sync_dir("")).map_err(failed)?;
        told(at);
        Ok(at)
    }
}

/// The SHA-256 of a file, in hexadecimal.
fn sha256(file: &dyn DiskFile) -> std::io::Result<String> {
    let (mut hash, mut at, mut buffer) = (Sha256::new(), 0, vec![0; STEP_BYTES]);
    loop {
        let got = file.read_at(&mut buffer, at)?;
        if got == 0 {
            return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hash.update(buffer.get(..got).unwrap_or_default());
        at += got as u64;
    }
}

/// The files that an index of tensors names.
fn parts(index: &[u8]) -> Option<Vec<String>> {
    let index: Json = serde_json::from_slice(index).ok()?;
    let files = index.get("weight_map")?.as_object()?.values();
    let mut parts: Vec<String> = files.map(|file| file.as_str().map(str::to_string)).collect::<Option<_>>()?;
    parts.sort();
    parts.dedup();
    let plain =
        (1..=FILES_MAX).contains(&parts.len()) && parts.iter().all(|part| is_plain(part) && !part.ends_with(PART));
    plain.then_some(parts)
}

/// Tests of the whole program have the same.
#[cfg(test)]
#[path = "../../tests/common/hub.rs"]
mod served;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    use super::served::Served;

    fn name(text: &str) -> HubName {
        HubName::parse(text).unwrap()
    }

    fn files(names: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
        names.iter().map(|(name, text)| (name.to_string(), text.as_bytes().to_vec())).collect()
    }

    fn fetched(hub: &Hub, text: &str) -> Result<PathBuf, String> {
        hub.fetch(&name(text), &mut |_, _| ()).map(|fetched| fetched.path)
    }

    fn bytes(path: &Path) -> Vec<u8> {
        let file = crate::host::open_file(path).unwrap();
        let mut out = vec![0; file.len().unwrap() as usize];
        file.read_at(&mut out, 0).unwrap();
        out
    }

    #[test]
    fn names_on_a_hub_are_told_from_paths() {
        assert_eq!(name("org/na-me.1"), HubName { repository: "org/na-me.1".into(), file: None });
        for file in ["m.Q4.gguf", "weights-audio.pth", "igpt.safetensors", "pytorch_model.bin"] {
            assert_eq!(name(&format!("org/name/{file}")).file.as_deref(), Some(file));
        }
        for other in
            ["name", "/org/name", "org/name/", "a/b/c", "a/b/c/d.gguf", "../name", "./name", "a/b c", "a/b?c", ""]
        {
            assert_eq!(HubName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_checkpoint_in_parts_is_fetched_as_it_is() {
        let index = r#"{"weight_map":{"a":"one.safetensors","b":"two.safetensors","c":"one.safetensors"}}"#;
        let all = files(&[
            ("config.json", "{}"),
            ("tokenizer.json", "[]"),
            ("model.safetensors.index.json", index),
            ("one.safetensors", "11111"),
            ("two.safetensors", "2222222"),
            ("pytorch_model.bin", "not wanted"),
            ("old.gguf", "not wanted"),
        ]);
        let hub_side = Served::new("org/name", all.clone());
        let cache = tempfile::tempdir().unwrap();
        let hub = Hub::new(&hub_side.endpoint, None, cache.path());
        let mut told = (0, 0);
        let got = hub.fetch(&name("org/name"), &mut |done, total| told = (done, total)).unwrap();
        assert_eq!(told, (16, 16));
        for wanted in
            ["config.json", "tokenizer.json", "one.safetensors", "two.safetensors", "model.safetensors.index.json"]
        {
            assert_eq!(bytes(&got.path.join(wanted)), all[wanted], "{wanted}");
        }
        assert_eq!(RealDisk::open(&got.path, false).unwrap().list("").unwrap().len(), 5);
        // All is there: only the list is asked for again.
        let asked = hub_side.asked().len();
        assert_eq!(fetched(&hub, "org/name"), Ok(got.path.clone()));
        assert_eq!(hub_side.asked().len(), asked + 1);
        got.remove().unwrap();
        assert!(!crate::host::exists(&got.path));
    }

    #[test]
    fn a_file_that_was_fetched_in_part_is_gone_on_with() {
        let text: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        let all = BTreeMap::from([("m.gguf".to_string(), text.clone())]);
        let hub_side = Served::new("org/name", all);
        let cache = tempfile::tempdir().unwrap();
        let hub = Hub::new(&hub_side.endpoint, Some("secret".into()), cache.path());
        // Every connection breaks off, until there are no more bytes at all.
        hub_side.cut(1_000_000, 2);
        let e = fetched(&hub, "org/name").unwrap_err();
        assert!(e.contains("goes on from there"), "{e}");
        hub_side.cut(1_000_000, 99);
        let path = fetched(&hub, "org/name").unwrap();
        assert!(path.ends_with("m.gguf") && bytes(&path) == text);
        let asked = hub_side.asked();
        assert!(asked.iter().all(|request| request.contains("Bearer secret")));
        let from = |byte: usize| asked.iter().filter(|request| request.contains(&format!("bytes={byte}-"))).count();
        assert_eq!((from(1_000_000), from(2_000_000)), (1, 2), "{asked:?}");
    }

    #[test]
    fn what_was_changed_on_its_way_is_not_kept() {
        let hub_side = Served::new("org/name", files(&[("m.gguf", "abc")]));
        let cache = tempfile::tempdir().unwrap();
        let hub = Hub::new(&hub_side.endpoint, None, cache.path());
        hub_side.says("m.gguf", &"0".repeat(64));
        let e = fetched(&hub, "org/name").unwrap_err();
        assert!(e.contains("SHA-256 ba7816bf") && e.contains("try again"), "{e}");
        // The next try starts from nothing.
        hub_side.says("m.gguf", "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD");
        let path = fetched(&hub, "org/name").unwrap();
        assert_eq!(bytes(&path), b"abc");
        assert!(hub_side.asked().iter().all(|request| !request.contains("bytes=")));
    }

    #[test]
    fn what_is_not_to_be_had_is_said() {
        let cache = tempfile::tempdir().unwrap();
        let refused = |endpoint: &str, text: &str, words: &[&str]| {
            let e = fetched(&Hub::new(endpoint, None, cache.path()), text).unwrap_err();
            words.iter().for_each(|word| assert!(e.contains(word), "{word}: {e}"));
        };
        let several = Served::new("org/name", files(&[("a.gguf", "a"), ("b.gguf", "b"), ("../c.gguf", "c")]));
        refused(&several.endpoint, "org/name", &["several", "org/name/FILE", "a.gguf, b.gguf"]);
        refused(&several.endpoint, "org/name/c.gguf", &["no file c.gguf", "a.gguf, b.gguf"]);
        refused(&several.endpoint, "org/other", &["no such model"]);
        refused(&several.endpoint, "org/gated", &["HF_TOKEN"]);
        let none = Served::new("org/name", files(&[("README.md", "a"), ("model.safetensors", "b")]));
        refused(&none.endpoint, "org/name", &["neither", "tokenizer.json"]);
        let outside = files(&[
            ("config.json", "{}"),
            ("tokenizer.json", "{}"),
            ("model.safetensors.index.json", r#"{"weight_map":{"a":"../../x"}}"#),
        ]);
        refused(&Served::new("org/name", outside).endpoint, "org/name", &["names no files beside it"]);
        // Nobody is there.
        let closed = Served::new("org/name", BTreeMap::new()).endpoint.clone();
        refused(&closed, "org/name", &["org/name", closed.as_str(), "Without a network", "path"]);
    }
}

//! The table of verbs and flags; help comes from it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::TypedValueParser;
use clap::{ArgAction, Args as ClapArgs, Command, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use super::config;
use crate::background::{Hours, MetricsAt};
use crate::base::{MethodId, ModelId};
use crate::codec::{DECODE_MS_MAX, Tier};
use crate::volume::Atime;
use crate::volume::{ParityShape, Rule};

/// A filesystem that understands what it stores.
#[derive(Parser, Debug)]
#[command(name = "tersefs", version, about, max_term_width = 100)]
pub(super) struct Args {
    /// Say more (-v), or everything (-vv)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Subcommand, Debug)]
pub(super) enum Verb {
    /// Make an empty store in a directory
    Mkfs { store: PathBuf },
    /// Mount a store; one that does not exist is made first
    ///
    /// Of flags that are given more than once, the last counts.
    #[command(args_override_self = true)]
    Mount(MountArgs),
    /// Wait for pending work, then unmount
    Umount {
        mountpoint: PathBuf,
        /// Do not wait for coding; say what is left (exit code 4 when something is). Nothing is lost: what is left stays
        /// plain in the store and is coded after the next mount
        #[arg(long)]
        now: bool,
        #[arg(long)]
        json: bool,
    },
    /// Show queue, ratio, methods and cache of a mounted volume
    Status {
        /// Store, mountpoint, or anything below it; may be left out when one volume is mounted
        path: Option<PathBuf>,
        /// Look every second, show what it does, and end by q or Ctrl-C
        #[arg(long)]
        watch: bool,
        #[arg(long)]
        json: bool,
    },
    /// Show what a volume, mounted or not, takes: by class of data, by method, and by directory
    ///
    /// Looks at every inode and at the header of every segment.
    Report {
        /// Store, mountpoint, or anything below it
        path: PathBuf,
        /// Directories shown, those that take most
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(0..=100_000).map(|n| n as usize))]
        top: usize,
        /// How deep below the root they lie at most
        #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=4096).map(|n| n as usize))]
        depth: usize,
        /// Write it as a page with plots, which needs nothing beside it
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
        #[arg(long)]
        json: bool,
    },
    /// Show how a file is kept: per segment its method, bits per byte and predicted time to decode
    Stat {
        file: PathBuf,
        #[arg(long)]
        json: bool,
    },
    /// Tell what a file takes and why: its methods, what stands against smaller ones, who decided, how long reading takes, and
    /// what it waits for
    Explain {
        /// A file in a mounted volume; or a store that is not mounted, and PATH
        file: PathBuf,
        /// The file in that store, from the root of the volume
        path: Option<PathBuf>,
        #[arg(long)]
        json: bool,
    },
    /// Tell what a file or a directory would take under another tier or budget, from samples of it that are coded
    ///
    /// Without what a volume has learned of its files, or has of them already: what it makes of them is smaller if
    /// anything.
    WhatIf {
        /// In a mounted volume or not
        file: PathBuf,
        /// All tiers without
        tier: Option<TierArg>,
        /// Longest time that decoding a segment may take, milliseconds; that of the tier without
        #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..=DECODE_MS_MAX as i64))]
        decode_ms: Option<u32>,
        /// Most bytes coded for each tier, MiB; what is smaller is coded as a whole
        #[arg(long, value_name = "MIB", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
        sample_mib: u64,
        #[arg(long)]
        json: bool,
    },
    /// Wait until everything that can be coded is coded
    Wait { path: Option<PathBuf> },
    /// Make everything written so far durable, like `sync` on other filesystems, which the kernel does not pass on
    Sync { path: Option<PathBuf> },
    /// Stop coding; files stay readable and writable
    Pause { path: Option<PathBuf> },
    /// Go on coding
    Resume { path: Option<PathBuf> },
    /// Check a store that is not mounted, and repair it when asked to
    ///
    /// Without --repair nothing is changed. Exit codes: 0 all is well (untidy things that the next mount puts right are
    /// noted); 1 it could not be checked; 3 damage was found and is still there; 5 all damage that was found is repaired.
    Fsck {
        store: PathBuf,
        /// Repair what is wrong. Files without a name, and what is left of files whose metadata is lost, are put into
        /// lost+found. Bytes that cannot be read stay as they are, and reading them stays an error: another disk
        /// controller or another copy of the store may still have them
        #[arg(long)]
        repair: bool,
        /// With --repair: only show what would be done
        #[arg(long, requires = "repair")]
        dry_run: bool,
        /// With --repair: give up bytes that cannot be read. They become holes, so that reading the file gives zeros in
        /// their place without any error. Only for when no better copy of the store exists; save the list of byte ranges
        /// first (--json)
        #[arg(long, requires = "repair")]
        drop_damaged: bool,
        /// Forget the index and make it anew from the packs
        #[arg(long)]
        rebuild_index: bool,
        #[arg(long)]
        json: bool,
    },
    /// Read and decode every segment of a store, mounted or not, and report damage by path
    ///
    /// A scrub that is stopped (^C) or cut off goes on where it was the next time. Exit code 3 when damage was found.
    Scrub {
        /// Store, mountpoint, or anything below it
        store: PathBuf,
        /// Read so many MiB of packs in a second; 0 means as fast as it goes. By default 32 when mounted, else 0
        #[arg(long)]
        mib_per_s: Option<u64>,
        /// Leave out packs that were verified within so many days
        #[arg(long)]
        max_age: Option<u64>,
        /// Check the checksums of records only, do not decode
        #[arg(long)]
        quick: bool,
        #[arg(long)]
        json: bool,
    },
    /// Teach a volume, mounted or not, what its files are like: makes priors of samples of them, and keeps those that save
    /// more than they take. A mounted volume does it by itself when it has grown
    ///
    /// What is coded from then on starts from them; `tersefs recode` codes anew what was coded before.
    Train {
        /// Store, mountpoint, or anything below it
        #[arg(required_unless_present = "builtin", conflicts_with = "builtin")]
        path: Option<PathBuf>,
        /// Show what would be saved, and keep nothing
        #[arg(long)]
        dry_run: bool,
        #[arg(long)]
        json: bool,
        /// For developers: build the priors that are part of the program, from a recipe of lines `prior NAME KIND`, then
        /// lines `cut FILE OFFSET LENGTH`
        #[arg(long, value_name = "RECIPE", requires_all = ["from", "to"])]
        builtin: Option<PathBuf>,
        /// With --builtin: directory that the files of the recipe are in
        #[arg(long, value_name = "DIRECTORY", requires = "builtin")]
        from: Option<PathBuf>,
        /// With --builtin: directory for the priors, as NAME.prior
        #[arg(long, value_name = "DIRECTORY", requires = "builtin")]
        to: Option<PathBuf>,
    },
    /// Code anew what was coded before the volume was trained, on a mounted volume or a store that is not mounted. The space
    /// is given back as that of deleted files is
    Recode {
        /// Store, mountpoint, or anything below it
        path: PathBuf,
        /// A segment is coded anew when that makes it smaller by so many percent
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=99))]
        saves_percent: u32,
        #[arg(long)]
        json: bool,
    },
    /// Give back the space of what was deleted, on a mounted volume or a store that is not mounted. A mounted volume does it
    /// by itself, slowly, when it is worth it
    Gc {
        /// Store, mountpoint, or anything below it
        path: PathBuf,
        /// Show what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
        #[arg(long)]
        json: bool,
    },
    /// Show what a file or a directory would take under each tier, and how fast it would be read; needs no volume
    ///
    /// A sample is coded, as the compressor would cut and bundle it; the same tree gives the same sample. Metadata of files is
    /// not counted, and files that are the same are not found out.
    Estimate {
        path: PathBuf,
        /// Most bytes coded for each tier, MiB; a tree that is smaller is coded as a whole
        #[arg(long, value_name = "MIB", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
        sample_mib: u64,
        /// Show too what the tier deep takes with this language model, and how many hours: a GGUF file, or the directory of a
        /// checkpoint
        #[arg(long)]
        model: Option<PathBuf>,
        #[arg(long)]
        json: bool,
    },
    /// Measure every method on this machine, beside zstd -19, xz -9e and zpaq -m5 where they are installed
    ///
    /// Methods of tersefs code independent segments of 64 KiB, 256 KiB and 1 MiB, the others each file as a whole. Speeds are
    /// those of one core, by processor time. Of a file the first 16 MiB are taken.
    #[command(args_conflicts_with_subcommands = true)]
    Bench {
        #[command(subcommand)]
        of: Option<BenchVerb>,
        /// Without any: samples that the program has with it
        files: Vec<PathBuf>,
        /// Measure this language model too, beside the others, on the first 64 KiB of each file: a GGUF file, or the
        /// directory of a checkpoint
        #[arg(long)]
        model: Option<PathBuf>,
        /// Write what was measured as a picture (SVG) too
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
        #[arg(long)]
        json: bool,
    },
    /// Language models: what a file holds, and what it would make of data
    Model {
        #[command(subcommand)]
        verb: ModelVerb,
    },
    /// Look whether this machine, and a store when one is given, have what a mount needs, and say what to do
    ///
    /// Every method codes a sample and gives it back. Exit code 3 when something is bad.
    Doctor {
        /// Store, mountpoint, or anything below it
        path: Option<PathBuf>,
        #[arg(long)]
        json: bool,
    },
    /// Write the completions of a shell to the standard output
    Completions { shell: clap_complete::Shell },
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man { directory: PathBuf },
    /// Write files of a store that is not mounted to the standard output, as a tar stream with owners, times, attributes, holes and
    /// hard links. Needs no FUSE; of a mounted volume any tar does it
    ///
    /// A damaged file is left out and named, and the exit code is 3 then. One of more than 64 MiB ends the stream, which is not
    /// whole then, and the exit code is 1: name what is to be written without it.
    Export {
        store: PathBuf,
        /// From the root of the volume; all of it without
        paths: Vec<PathBuf>,
    },
    /// Take a tar stream from the standard input into a store that is not mounted, which is made where it is missing. What
    /// comes in is coded after the next mount
    ///
    /// Files that are there are replaced, directories added to.
    Import {
        store: PathBuf,
        /// Directory of the volume that it goes below
        #[arg(long, value_name = "DIR", default_value = "/")]
        into: PathBuf,
        #[arg(long)]
        json: bool,
    },
    /// Write the bytes of one file of a store that is not mounted to the standard output; needs no FUSE
    CatRaw {
        store: PathBuf,
        /// From the root of the volume
        path: PathBuf,
    },
    /// Write what a store has and another lacks to the standard output, for `receive`: packs as they are, files that are not coded
    /// yet, priors and models. The store must not be mounted for writing
    Send {
        store: PathBuf,
        /// What the other has, as `receive --have` writes it (`-` for the standard input); without it all is sent
        #[arg(long, value_name = "FILE")]
        have: Option<PathBuf>,
    },
    /// Take what `send` writes from the standard input into a store that follows the other, and is made where it is missing
    ///
    /// It is as the other was when all came, and as before until then. It can be mounted, for reading alone, until --promote.
    Receive {
        store: PathBuf,
        /// Write what is there, for `send --have`, and take nothing
        #[arg(long, conflicts_with_all = ["finish", "promote", "json"])]
        have: bool,
        /// Do what an earlier `receive` left when it was cut off while files were put in their places
        #[arg(long, conflicts_with_all = ["promote", "json"])]
        finish: bool,
        /// Make it a store of its own, to be written: it takes nothing more then
        #[arg(long, conflicts_with = "json")]
        promote: bool,
        #[arg(long)]
        json: bool,
    },
    /// Show packs and records of a store, damaged ones too; never writes
    Inspect {
        store: PathBuf,
        #[arg(long)]
        json: bool,
    },
}

/// What `bench` measures beside files of any kind.
#[derive(Subcommand, Debug)]
pub(super) enum BenchVerb {
    /// Measure pictures, sound and video that nobody has compressed as a volume codes them, beside codecs that are installed
    ///
    /// Files are summed by directory and kind. Pictures: cjxl -d 0 -e 7 and -e 9; sound: flac -8 and wavpack -hhx; video: ffv1 with a
    /// key frame each frame and each 600, and x264 veryslow -qp 0, by ffmpeg. What those decode to is not compared.
    Media {
        /// Files, or directories with all below them
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Measure this model of bytes (bGPT) or of grey values (iGPT) too, on the first 64 KiB of each file: the directory or file
        /// of a checkpoint; may be given more than once
        #[arg(long)]
        model: Vec<PathBuf>,
        #[arg(long)]
        json: bool,
    },
}

/// What can be done with language models.
#[derive(Subcommand, Debug)]
pub(super) enum ModelVerb {
    /// Give a volume, mounted or not, a language model: text that the tier deep codes from then on is coded with it, where
    /// that is smaller than without. Coding takes about an hour of one core for 10 MB of text with the smallest models, and
    /// reading as long: see `tersefs model check`
    ///
    /// The model is copied into the store, and its segments cannot be read without it. A model of bytes (bGPT) or of grey values
    /// of images (iGPT) codes binary data of the tier deep in the same way; a volume can have one beside a language model.
    Add {
        /// Store, mountpoint, or anything below it
        path: PathBuf,
        /// GGUF file, or directory of a checkpoint; a bGPT or an iGPT as a file of safetensors or of PyTorch (.pth, .bin), or the
        /// directory of one; or where there is none of that name, a model on the hub of Hugging Face,
        /// `org/name`, `org/name/model.gguf` or `org/name/weights.pth`, which is fetched (HF_ENDPOINT and HF_TOKEN as its own programs have them)
        model: PathBuf,
        /// An adapter to it: the directory that PEFT or `model adapt` wrote. With it, it is a model of its own
        #[arg(long, value_name = "DIR")]
        adapter: Option<PathBuf>,
        #[arg(long)]
        json: bool,
    },
    /// Show the language models of a volume, mounted or not
    List {
        /// Store, mountpoint, or anything below it
        path: PathBuf,
        #[arg(long)]
        json: bool,
    },
    /// Remove a language model from a store that is not mounted. Refused where segments were coded with it
    Remove {
        /// Store
        path: PathBuf,
        /// Its name, as `list` shows it
        #[arg(value_parser = model_id)]
        id: ModelId,
    },
    /// Read the files of the language models of a volume, mounted or not, and hold them against what came. Exit code 3 when
    /// one is damaged: bring it again with `add`
    Verify {
        /// Store, mountpoint, or anything below it
        path: PathBuf,
        /// Its name, as `list` shows it; all of them without
        #[arg(value_parser = model_id)]
        id: Option<ModelId>,
    },
    /// Copy the files of a language model out of a volume, mounted or not
    Export {
        /// Store, mountpoint, or anything below it
        path: PathBuf,
        /// Its name, as `list` shows it
        #[arg(value_parser = model_id)]
        id: ModelId,
        /// Directory for its files, made where it is missing; files that are there are not written over
        to: PathBuf,
    },
    /// Load a model and show what it is: a GGUF file, or the directory of a checkpoint (config.json, tokenizer.json,
    /// safetensors), of Llama, Mistral, Qwen 2 or 3, or Gemma 3; or the tensors of a bGPT or an iGPT
    Show {
        model: PathBuf,
        /// An adapter to it: the directory that PEFT or `model adapt` wrote
        #[arg(long, value_name = "DIR")]
        adapter: Option<PathBuf>,
        #[arg(long)]
        json: bool,
    },
    /// Teach a model a domain: train an adapter (LoRA) on texts like those it is to code, and write it as PEFT does
    ///
    /// Uses all cores, or as many as RAYON_NUM_THREADS says, for minutes to hours; CUDA where it was built with it. What comes
    /// of it is tried with `model check --adapter`.
    #[cfg(feature = "lora")]
    Adapt(AdaptArgs),
    /// Train a model of images (igpt) or of any bytes (bgpt) from nothing, on data like that it is to code
    ///
    /// Uses all cores, or as many as RAYON_NUM_THREADS says, for hours to days; CUDA where it was built with it. What comes of it is
    /// a file that `model add` takes.
    #[cfg(feature = "lora")]
    Pretrain(PretrainArgs),
    /// Code the beginning of files with a model, decode it, compare, and show sizes and speeds
    Check {
        model: PathBuf,
        /// An adapter to it: the directory that PEFT or `model adapt` wrote
        #[arg(long, value_name = "DIR")]
        adapter: Option<PathBuf>,
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Bytes taken of each file, KiB
        #[arg(long, value_name = "KIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
        sample_kib: u64,
        /// Bytes of a segment, KiB
        #[arg(long, value_name = "KIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1 << 10).map(|n| n as usize))]
        segment_kib: usize,
        /// Bytes of a lane, KiB, a power of two: each is coded by itself, and all of a segment are decoded together
        #[arg(long, value_name = "KIB", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=64).map(|n| n as usize))]
        lane_kib: usize,
        /// Code only, for the sizes: half the time
        #[arg(long)]
        sizes_only: bool,
        #[arg(long)]
        json: bool,
    },
}

#[cfg(feature = "lora")]
#[derive(ClapArgs, Debug)]
pub(super) struct AdaptArgs {
    pub model: PathBuf,
    /// Texts of the domain: files, or directories with all that is in them; the first 256 MiB are taken
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    pub data: Vec<PathBuf>,
    /// Directory that the adapter is written to: adapter_config.json and adapter_model.safetensors
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Width of what is added to each matrix: an adapter's size and what it can learn grow with it
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=1024).map(|n| n as usize))]
    pub rank: usize,
    /// How much it counts: by alpha / rank
    #[arg(long, default_value_t = 4.0)]
    pub alpha: f64,
    /// Matrices that are adapted
    #[arg(long, value_delimiter = ',', default_value = "q,k,v,o,gate,up,down", value_parser = ["q", "k", "v", "o", "gate", "up", "down"])]
    pub matrices: Vec<String>,
    #[arg(long, default_value_t = 4e-3)]
    pub learning_rate: f64,
    /// Tokens that are read together
    #[arg(long, value_name = "TOKENS", default_value_t = 512)]
    pub window: usize,
    /// Tokens of a step
    #[arg(long, value_name = "TOKENS", default_value_t = 1024)]
    pub batch_tokens: usize,
    #[command(flatten)]
    pub course: CourseArgs,
    #[arg(long)]
    pub json: bool,
}

#[cfg(feature = "lora")]
#[derive(ClapArgs, Debug)]
pub(super) struct PretrainArgs {
    #[arg(value_parser = crate::tools::PRETRAINED)]
    pub network: String,
    /// Data of the kind that it is to code: files, or directories with all that is in them; the first 256 MiB are taken
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    pub data: Vec<PathBuf>,
    /// Directory that the model is written to: igpt.safetensors or bgpt.safetensors
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// A checkpoint to begin with, instead of noise: safetensors or a file of PyTorch, or a directory with one. Its layers, width and heads
    /// stay; one of images whose tokens are colours of a palette gets a new embedding and a new head. A tenth of the usual learning rate
    /// is often enough
    #[arg(long, value_name = "CHECKPOINT", conflicts_with_all = ["layers", "width", "heads"])]
    pub from: Option<PathBuf>,
    /// Layers; a bgpt has a quarter as many that read the bytes of a patch
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=64).map(|n| n as usize))]
    pub layers: usize,
    /// Elements of its state
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u64).range(32..=4096).map(|n| n as usize))]
    pub width: usize,
    /// Heads that they are shared by
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=64).map(|n| n as usize))]
    pub heads: usize,
    #[arg(long, default_value_t = 2e-3)]
    pub learning_rate: f64,
    /// Bytes that are read together: the longest that it ever looks back
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    pub window: usize,
    /// Bytes of a step
    #[arg(long, value_name = "BYTES", default_value_t = 4096)]
    pub batch_bytes: usize,
    #[command(flatten)]
    pub course: CourseArgs,
    #[arg(long)]
    pub json: bool,
}

/// How long something is trained.
#[cfg(feature = "lora")]
#[derive(ClapArgs, Debug)]
pub(super) struct CourseArgs {
    /// Steps; without it as many as the data has
    #[arg(long)]
    pub steps: Option<u64>,
    /// Stop after so many minutes with the best so far; --resume then goes on
    #[arg(long)]
    pub minutes: Option<f64>,
    /// Steps from one look at what is held out to the next
    #[arg(long, default_value_t = 20)]
    pub judged_steps: u64,
    /// The same seed gives the same on the same machine
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Go on where a run into the same directory was stopped
    #[arg(long)]
    pub resume: bool,
}

/// Settings of a mount. A flag of them is a setting of the configuration files and an option of mount(8) too.
#[derive(ClapArgs, Clone, Debug)]
pub(super) struct MountArgs {
    /// Directory of the store; alone, the name of a volume: /etc/tersefs/NAME.toml says store and mountpoint
    pub store: Option<PathBuf>,
    pub mountpoint: Option<PathBuf>,
    /// File with settings: flags without their dashes, and store and mountpoint, as TOML. Flags count before what
    /// STORE/tersefs.toml says, and that before this file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Return when the volume is mounted, and serve it in the background; messages go to STORE/daemon.log
    #[arg(long)]
    pub daemon: bool,
    /// Change nothing in the store
    #[arg(long)]
    pub read_only: bool,
    /// Forget the index and make it anew from the packs
    #[arg(long)]
    pub rebuild_index: bool,
    /// Memory the daemon may use beyond the tables of models (25 MiB for each worker thread, 24 for each prior in use),
    /// MiB; at least 64
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    pub memory: u64,
    /// Part of it for decoded segments, MiB, at most half; a quarter unless given
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(0..=1 << 24))]
    pub cache_mib: Option<u64>,
    /// Keep decoded copies on disk of what is slow to decode and is read again and again, MiB at most: in STORE/cache, or where
    /// --hot-cache-dir says. They are plain bytes, for the owner of the store alone, may be deleted at any time, and make room
    /// for whatever else needs the space. 0 keeps none
    #[arg(long, value_name = "MIB", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1 << 40))]
    pub hot_cache_mib: u64,
    /// Directory for these copies, of this mount alone, instead of the store; it is made where it is missing. A mount that is
    /// read-only makes copies there and nowhere else
    #[arg(long, value_name = "DIRECTORY")]
    pub hot_cache_dir: Option<PathBuf>,
    /// A file is coded after it was closed and unchanged for this long, seconds
    #[arg(long, default_value_t = 3.0)]
    pub quiet_seconds: f64,
    /// A file that is not coded yet gets checksums after it was closed and unchanged for this long, seconds
    #[arg(long, default_value_t = 10.0)]
    pub seal_seconds: f64,
    /// Longest time that decoding one segment, and so a cold read of a few bytes, may take on this machine, milliseconds:
    /// segments are cut shorter and methods chosen by it. 2000 unless given, 10000 in the tier deep. The attribute
    /// user.tersefs.decode_ms of a file, or of a directory for all below it, says otherwise
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..=DECODE_MS_MAX as i64))]
    pub decode_ms: Option<u32>,
    /// fast: zstd alone; balanced: the default method; deep: the strongest method in segments of 1 MiB, and for text
    /// the volume's language model, where it has one. The attribute
    /// user.tersefs.tier of a file, or of a directory for all below it, says otherwise
    #[arg(long, value_enum, default_value_t = TierArg::Balanced)]
    pub tier: TierArg,
    /// Method to code with; auto takes the smallest that the tier has
    #[arg(long, value_enum, default_value_t = MethodArg::Auto)]
    pub method: MethodArg,
    /// How files of some paths, kinds or ages are coded, as 'match = "logs/**/*.log", older = "7d", tier = "deep"'. What is
    /// given of match, class and older says for which files; tier, decode-ms and nocompress what holds for them. May be given
    /// more than once: the last rule that matches counts, after attributes and before the settings of the volume. In files,
    /// tables [[rule]]
    #[arg(long, value_name = "RULE", value_parser = config::rule)]
    pub rule: Vec<Rule>,
    /// Let other users use the mount (for root this is so in any case)
    #[arg(long)]
    pub allow_other: bool,
    /// Let setuid bits of the volume's files count for nothing (for users this is so in any case)
    #[arg(long)]
    pub nosuid: bool,
    /// Let device files of the volume be no devices (for users this is so in any case)
    #[arg(long)]
    pub nodev: bool,
    /// Let no program of the volume be run
    #[arg(long)]
    pub noexec: bool,
    /// Do not code in the background; `tersefs resume` starts it
    #[arg(long)]
    pub no_coding: bool,
    /// Code in the background at these times of the week only, by the local clock: "22:00-06:00", or "Mon-Fri 20:00-08:00, Sat-Sun
    /// 00:00-24:00". At all times unless given
    #[arg(long, value_name = "HOURS", value_parser = Hours::parse)]
    pub coding_hours: Option<Hours>,
    /// Processor time that coding in the background may take, percent of one core; 0 means all that others leave. Of files
    /// that are being written much more may be staged then
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub coding_cpu: u32,
    /// Code in the background on battery too
    #[arg(long)]
    pub coding_on_battery: bool,
    /// Do not code in the background while programs of the machine wait for a processor for more than so many percent of the
    /// time (/proc/pressure/cpu, some avg10), until it has fallen to half of that; 0 means that coding does not look
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub cpu_pressure: u32,
    /// The same of waiting for disks
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub io_pressure: u32,
    /// The same of waiting for memory
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub memory_pressure: u32,
    /// Do not train priors on the volume's own files in the background; `tersefs train` does it
    #[arg(long)]
    pub no_training: bool,
    /// Code every file by itself, though its content may be in the volume already: without this it shares the segments that
    /// are there. Files that share segments already go on doing so
    #[arg(long)]
    pub no_sharing: bool,
    /// Scrub the volume in the background every so many days; 0 turns it off
    #[arg(long, default_value_t = 30)]
    pub scrub_days: u32,
    /// Make parity for packs that are full, K+M: for every K parts of a pack M more, of which as many damaged parts can be
    /// computed again, on reading and by scrub. 10+1 costs a tenth of the space. Off when it is left out; parity that was
    /// made before is used in any case
    #[arg(long, value_name = "K+M", value_parser = parity)]
    pub parity: Option<ParityShape>,
    /// Threads for decoding, and as many for coding; 0 means one per core
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// When reading a file moves its time of access: when it changed since, or once a day; never; or always
    #[arg(long, value_enum, default_value_t = AtimeArg::Relatime)]
    pub atime: AtimeArg,
    /// Let the kernel collect writes before it hands them over, for programs that write a few bytes at a time. What was
    /// written and not synced or closed then dies with the daemon, not only with the machine. Turns passthrough off
    #[arg(long)]
    pub writeback_cache: bool,
    /// Do not let the kernel read and write hot files in the store by itself
    #[arg(long)]
    pub no_passthrough: bool,
    /// Serve metrics in the format of Prometheus, over HTTP, on a socket for its owner alone (unix:PATH) or a port of this
    /// machine (127.0.0.1:PORT)
    #[arg(long, value_name = "ADDRESS", value_parser = MetricsAt::parse)]
    pub metrics: Option<MetricsAt>,
    /// When the daemon is told to end while files are open in the mount: how long it waits for them, seconds. Then it ends
    /// all the same; what was written into them is safe
    #[arg(long, default_value_t = 30)]
    pub stop_seconds: u32,
    /// Set by --daemon for the process it starts
    #[arg(long, hide = true)]
    pub detached: bool,
}

impl MountArgs {
    /// The store; there is one once files were read.
    pub fn store(&self) -> &Path {
        self.store.as_deref().unwrap_or(Path::new(""))
    }

    /// The mountpoint; there is one once files were read.
    pub fn mountpoint(&self) -> &Path {
        self.mountpoint.as_deref().unwrap_or(Path::new(""))
    }
}

/// The table. A switch of `mount` takes `=true` and `=false` too: a file must be able to take back what another says.
pub(super) fn command() -> Command {
    Args::command().mut_subcommand("mount", |mount| {
        mount.mut_args(|arg| match arg.get_action() {
            // How the program is called is no setting, and the process that serves is told by exchanging one for the other.
            ArgAction::SetTrue if arg.get_long() != Some("daemon") && arg.get_long() != Some("detached") => arg
                .action(ArgAction::Set)
                .value_parser(clap::value_parser!(bool))
                .value_name("BOOL")
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .default_value("false")
                .hide_default_value(true)
                .hide_possible_values(true),
            _ => arg,
        })
    })
}

/// Reads a command line by the table.
pub(super) fn parse(line: &[OsString]) -> Result<Args, clap::Error> {
    Args::from_arg_matches(&command().try_get_matches_from(line)?)
}

/// What an error of the table says, without how the program is called, and of settings instead of flags.
pub(super) fn first_sentence(e: &clap::Error) -> String {
    let text = e.to_string();
    let what: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    what.join(" ").trim_start_matches("error: ").replace("'--", "'")
}

/// Reads the name of a model.
fn model_id(text: &str) -> Result<ModelId, String> {
    ModelId::parse(text).ok_or_else(|| "give the 32 hexadecimal digits that `tersefs model list` shows".to_string())
}

/// Reads K+M.
fn parity(text: &str) -> Result<ParityShape, String> {
    let parts = text.split_once('+').and_then(|(k, m)| Some((k.parse().ok()?, m.parse().ok()?)));
    match parts {
        Some((data, parity)) if (1..=64).contains(&data) && (1..=16).contains(&parity) => {
            Ok(ParityShape { data, parity })
        }
        _ => Err("give K+M, like 10+1: K from 1 to 64, M from 1 to 16".to_string()),
    }
}

/// Methods that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum MethodArg {
    Auto,
    Raw,
    Zstd,
    Cm,
    Swift,
    Primed,
    Strong,
    Sound,
    Picture,
    Video,
    Language,
}

impl MethodArg {
    pub fn only(self) -> Option<MethodId> {
        match self {
            MethodArg::Auto => None,
            MethodArg::Raw => Some(MethodId::Raw),
            MethodArg::Zstd => Some(MethodId::Zstd),
            MethodArg::Cm => Some(MethodId::Cm),
            MethodArg::Swift => Some(MethodId::Swift),
            MethodArg::Primed => Some(MethodId::Primed),
            MethodArg::Strong => Some(MethodId::Strong),
            MethodArg::Sound => Some(MethodId::Sound),
            MethodArg::Picture => Some(MethodId::Picture),
            MethodArg::Video => Some(MethodId::Video),
            MethodArg::Language => Some(MethodId::Language),
        }
    }
}

/// Tiers that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum TierArg {
    Fast,
    Balanced,
    Deep,
}

impl TierArg {
    pub fn tier(self) -> Tier {
        match self {
            TierArg::Fast => Tier::Fast,
            TierArg::Balanced => Tier::Balanced,
            TierArg::Deep => Tier::Deep,
        }
    }
}

/// Policies of the time of access, named as the flags of mount(8) are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum AtimeArg {
    Relatime,
    Noatime,
    Strictatime,
}

impl AtimeArg {
    pub fn policy(self) -> Atime {
        match self {
            AtimeArg::Relatime => Atime::Relative,
            AtimeArg::Noatime => Atime::Never,
            AtimeArg::Strictatime => Atime::Always,
        }
    }
}

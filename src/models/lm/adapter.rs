//! Adapters: what turns a model to one domain, in a small part of its size.
//!
//! An adapter adds to a matrix of weights the product of two thin ones (LoRA, E. Hu et al., 2021). It is read as PEFT
//! (Hugging Face) writes it, a directory with `adapter_config.json` and `adapter_model.safetensors`, and added to the rows of
//! the model as these are read, before they are cut into whole numbers. What is computed with afterwards is a model like any
//! other, with a name of its own, since that is a hash of its weights.
//!
//! Every element becomes `(w + scale * (b1 * a1 + b2 * a2 + ...)) as f32`, computed in 64 bits from left to right; so the
//! weights are the same on every machine.

use std::collections::BTreeMap;
use std::io::{Read, Seek};

use serde_json::Value as Json;

use super::LoadError;
use super::load::{EachRow, Open, Tensors};
use super::plan::Plan;
use super::safetensors::{self, Checkpoint, MATRICES};

/// Names of an adapter's files.
pub(super) const CONFIG: &str = "adapter_config.json";
pub(super) const TENSORS: &str = "adapter_model.safetensors";
/// Widest product: those of real adapters have 4 to 256.
pub(super) const RANK_MAX: usize = 1024;
/// Greatest factor of a product; alpha / rank is seldom above 4.
const SCALE_MAX: f64 = 1e6;

/// Settings that change what an adapter is, and are not known here, other than null, false or empty.
const UNKNOWN: [&str; 14] = [
    "alora_invocation_tokens",
    "alpha_pattern",
    "corda_config",
    "fan_in_fan_out",
    "layer_replication",
    "loftq_config",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
];
/// Ways to begin an adapter that leave the model's weights as they are. Others (`pissa`, `olora`, `loftq`) change them too.
const BEGINNINGS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// What is added to one matrix: `wide` (rank rows of the matrix' columns) is multiplied with `tall` (the matrix' rows of rank
/// elements).
#[derive(Debug, Default)]
struct Product {
    rows: usize,
    columns: usize,
    wide: Vec<f32>,
    tall: Vec<f32>,
}

/// An adapter.
#[derive(Debug)]
pub(super) struct Adapter {
    rank: usize,
    scale: f64,
    /// By the names that GGUF has for the matrices.
    products: BTreeMap<String, Product>,
}

/// Which half of a product a tensor is.
const HALVES: [&str; 2] = [".lora_A.weight", ".lora_B.weight"];

/// The name of a matrix in GGUF, followed by the half.
fn known(name: &str) -> Result<Option<String>, LoadError> {
    let parts = || {
        let (matrix, half) = HALVES.iter().find_map(|half| Some((name.strip_suffix(half)?, half)))?;
        let (layer, what) = matrix.strip_prefix("base_model.model.model.layers.")?.split_once('.')?;
        let (_, of_gguf) = MATRICES.iter().find(|(of_hub, _)| *of_hub == what)?;
        Some(format!("blk.{layer}.{of_gguf}.weight{half}"))
    };
    match parts() {
        Some(name) => Ok(Some(name)),
        None => Err(LoadError::Unsupported(format!(
            "its adapter has a tensor {name}; known are lora_A and lora_B of the matrices q_proj, k_proj, v_proj, o_proj, \
             gate_proj, up_proj and down_proj of a layer"
        ))),
    }
}

impl Adapter {
    /// Reads an adapter. `open` opens a file of its directory by its name.
    ///
    /// # Errors
    /// Says what is missing, unknown or out of bounds.
    pub fn open<R: Read + Seek>(open: Open<'_, R>) -> Result<Adapter, LoadError> {
        let (rank, scale) = settings(&safetensors::json(open, CONFIG)?)?;
        let file =
            open(TENSORS).map_err(|e| LoadError::Read(std::io::Error::new(e.kind(), format!("{TENSORS}: {e}"))))?;
        let mut tensors = Checkpoint::of_file(file, TENSORS, &known)?;
        let mut products = BTreeMap::<String, Product>::new();
        for name in tensors.names() {
            let Some(end) = HALVES.iter().position(|half| name.ends_with(half)) else { continue };
            let (Some(matrix), Some((rows, columns))) = (name.strip_suffix(HALVES[end]), tensors.extent(&name)) else {
                continue;
            };
            let of_rank = if end == 0 { rows } else { columns };
            if of_rank != rank {
                return Err(LoadError::Malformed(format!(
                    "its adapter is of rank {rank} by its settings, and has {of_rank} for {name}"
                )));
            }
            let mut elements = Vec::new();
            tensors.rows(&name, &mut |_, row| {
                elements.extend_from_slice(row);
                Ok(())
            })?;
            let product = products.entry(matrix.to_string()).or_default();
            if end == 0 {
                (product.columns, product.wide) = (columns, elements);
            } else {
                (product.rows, product.tall) = (rows, elements);
            }
        }
        for (name, product) in &products {
            for (half, elements) in HALVES.iter().zip([&product.wide, &product.tall]) {
                if elements.is_empty() {
                    return Err(LoadError::Malformed(format!("its adapter has no {name}{half}")));
                }
            }
        }
        if products.is_empty() {
            return Err(LoadError::Malformed("its adapter changes no matrix".into()));
        }
        Ok(Adapter { rank, scale, products })
    }

    /// Adds what the adapter has for a row of a matrix.
    fn add(&self, product: &Product, row: usize, out: &mut [f32], sums: &mut Vec<f64>) {
        sums.clear();
        sums.resize(out.len(), 0.0);
        let tall = product.tall.get(row * self.rank..).unwrap_or_default();
        for (b, wide) in tall.iter().zip(product.wide.chunks_exact(product.columns.max(1))).take(self.rank) {
            // A product of two floats of 32 bits is exact in 64.
            for (sum, a) in sums.iter_mut().zip(wide) {
                *sum += f64::from(*b) * f64::from(*a);
            }
        }
        for (w, sum) in out.iter_mut().zip(sums) {
            *w = (f64::from(*w) + self.scale * *sum) as f32;
        }
    }
}

/// Rank and scale of an adapter, from its settings.
fn settings(config: &Json) -> Result<(usize, f64), LoadError> {
    let unsupported = |what: String| Err(LoadError::Unsupported(format!("its adapter {what}")));
    match config.get("peft_type").and_then(Json::as_str) {
        Some("LORA") => {}
        Some(kind) => return unsupported(format!("is of the kind {kind}; only LORA is known")),
        None => return Err(LoadError::Malformed("its adapter does not say its peft_type".into())),
    }
    for name in UNKNOWN {
        let plain = match config.get(name) {
            None | Some(Json::Null | Json::Bool(false)) => true,
            Some(Json::Array(many)) => many.is_empty(),
            Some(Json::Object(many)) => many.is_empty(),
            Some(_) => false,
        };
        if !plain {
            return unsupported(format!("sets {name}, which is not known"));
        }
    }
    match config.get("bias") {
        None | Some(Json::Null) => {}
        Some(Json::String(none)) if none == "none" => {}
        Some(other) => return unsupported(format!("has a bias ({other})")),
    }
    match config.get("init_lora_weights") {
        Some(Json::String(begun)) if !BEGINNINGS.contains(&begun.as_str()) => {
            return unsupported(format!("was begun by {begun}, which changes the model's own weights too"));
        }
        _ => {}
    }
    let rank = match config.get("r").and_then(Json::as_u64) {
        Some(rank) if (1..=RANK_MAX as u64).contains(&rank) => rank as usize,
        Some(rank) => return unsupported(format!("is of rank {rank}; known are 1 to {RANK_MAX}")),
        None => return Err(LoadError::Malformed("its adapter does not say its rank (r)".into())),
    };
    let Some(alpha) = config.get("lora_alpha").and_then(Json::as_f64) else {
        return Err(LoadError::Malformed("its adapter does not say its lora_alpha".into()));
    };
    let by_root = config.get("use_rslora").and_then(Json::as_bool) == Some(true);
    let scale = alpha / if by_root { (rank as f64).sqrt() } else { rank as f64 };
    if !(-SCALE_MAX..=SCALE_MAX).contains(&scale) {
        return unsupported(format!("is scaled by {scale}"));
    }
    Ok((rank, scale))
}

/// Tensors with an adapter added.
pub(super) struct Adapted<'a, T> {
    tensors: T,
    plan: &'a Plan,
    adapter: Adapter,
}

impl<'a, T: Tensors> Adapted<'a, T> {
    /// # Errors
    /// When the adapter is one to a model of other shape.
    pub fn new(tensors: T, plan: &'a Plan, adapter: Adapter) -> Result<Adapted<'a, T>, LoadError> {
        for (name, Product { rows, columns, .. }) in &adapter.products {
            match tensors.extent(name) {
                Some(extent) if extent == (*rows, *columns) => {}
                Some((r, c)) => {
                    return Err(LoadError::Malformed(format!(
                        "its adapter is of another model: for {name} it has {rows} rows of {columns} elements, and the model \
                         {r} of {c}"
                    )));
                }
                None => {
                    return Err(LoadError::Malformed(format!(
                        "its adapter is of another model: it changes {name}, which the model does not have"
                    )));
                }
            }
        }
        Ok(Adapted { tensors, plan, adapter })
    }
}

impl<T: Tensors> Tensors for Adapted<'_, T> {
    fn names(&self) -> Vec<String> {
        self.tensors.names()
    }

    fn extent(&self, name: &str) -> Option<(usize, usize)> {
        self.tensors.extent(name)
    }

    fn rows(&mut self, name: &str, each: EachRow<'_>) -> Result<(), LoadError> {
        let Some(product) = self.adapter.products.get(name) else { return self.tensors.rows(name, each) };
        // Rows of an adapter are in the order of checkpoints.
        let turns = name.ends_with(".attn_q.weight") || name.ends_with(".attn_k.weight");
        let (mut added, mut sums) = (Vec::new(), Vec::new());
        self.tensors.rows(name, &mut |n, row| {
            added.clear();
            added.extend_from_slice(row);
            self.adapter.add(product, if turns { self.plan.apart(n) } else { n }, &mut added, &mut sums);
            if added.iter().any(|x| !x.is_finite()) {
                return Err(LoadError::Malformed(format!(
                    "row {n} of tensor {name} has elements that are no numbers once its adapter is added"
                )));
            }
            each(n, &added)
        })
    }
}

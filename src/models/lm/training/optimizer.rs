//! AdamW (I. Loshchilov and F. Hutter, 2017), with a state that can be written down, which candle's own keeps to itself.

use candle_core::{Result, Tensor, Var};

const BETAS: [f64; 2] = [0.9, 0.999];
const EPSILON: f64 = 1e-8;
const DECAY: f64 = 0.01;
/// Longest gradient, over all variables; a longer one is shortened.
const GRADIENT_MAX: f64 = 1.0;

#[derive(Debug)]
pub(in crate::models::lm) struct AdamW {
    pub vars: Vec<Var>,
    /// Means of gradients, and of their squares, as long as the variables.
    pub means: Vec<Tensor>,
    pub squares: Vec<Tensor>,
    pub steps: u64,
}

impl AdamW {
    pub fn new(vars: Vec<Var>) -> Result<AdamW> {
        let zeros = || vars.iter().map(|var| var.zeros_like()).collect::<Result<Vec<_>>>();
        Ok(AdamW { means: zeros()?, squares: zeros()?, vars, steps: 0 })
    }

    /// Moves the variables against their gradients.
    pub fn step(&mut self, gradients: &[Tensor], learning_rate: f64) -> Result<()> {
        let mut length = 0.0;
        for gradient in gradients {
            length += f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?);
        }
        let shorter = (GRADIENT_MAX / length.sqrt().max(1e-30)).min(1.0);
        self.steps += 1;
        let [of_mean, of_square] = BETAS;
        let of_step = |beta: f64| 1.0 / (1.0 - beta.powf(self.steps as f64));
        let states = self.means.iter_mut().zip(&mut self.squares);
        for ((var, (mean, square)), gradient) in self.vars.iter().zip(states).zip(gradients) {
            // What a gradient came from would be kept with the means, of all steps.
            let gradient = (gradient.detach() * shorter)?;
            *mean = ((&*mean * of_mean)? + (&gradient * (1.0 - of_mean))?)?;
            *square = ((&*square * of_square)? + (gradient.sqr()? * (1.0 - of_square))?)?;
            let root = ((&*square * of_step(of_square))?.sqrt()? + EPSILON)?;
            let step = ((&*mean * of_step(of_mean))? / root)?;
            let kept = (var.as_detached_tensor() * (1.0 - learning_rate * DECAY))?;
            var.set(&(kept - (step * learning_rate)?)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use candle_nn::optim::{Optimizer, ParamsAdamW};

    use super::*;

    #[test]
    fn steps_are_those_of_candle() {
        let begin = || Var::from_slice(&[0.5f32, -1.0, 2.0], 3, &Device::Cpu).unwrap();
        let (ours, theirs) = (begin(), begin());
        let mut optimizer = AdamW::new(vec![ours.clone()]).unwrap();
        let settings = ParamsAdamW { lr: 0.01, beta1: BETAS[0], beta2: BETAS[1], eps: EPSILON, weight_decay: DECAY };
        let mut other = candle_nn::AdamW::new(vec![theirs.clone()], settings).unwrap();
        for _ in 0..20 {
            // Shorter than the longest.
            let gradient = |var: &Var| (var.as_tensor().sqr().unwrap().sum_all().unwrap() * 0.05).unwrap().backward();
            let of_ours = gradient(&ours).unwrap().get(&ours).unwrap().clone();
            optimizer.step(&[of_ours], 0.01).unwrap();
            other.step(&gradient(&theirs).unwrap()).unwrap();
            assert_eq!(ours.to_vec1::<f32>().unwrap(), theirs.to_vec1::<f32>().unwrap());
            assert!(optimizer.means.iter().chain(&optimizer.squares).all(|kept| !kept.track_op()));
        }
    }
}

//! `--device`

use burn::tensor::Device;
#[cfg(any(feature = "vulkan", feature = "wgpu"))]
use burn::tensor::DeviceKind;
use clap::Args;

/// Where tensors live.
#[derive(Clone, Debug, Args)]
pub(crate) struct On {
    /// Where tensors live and are computed with: cpu; vulkan, wgpu or cuda where the command was built with that feature, with a
    /// number for one of several, as cuda:1.
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = device)]
    pub(crate) device: Device,
}

/// Devices of a feature each.
const CARDS: [&str; 3] = ["vulkan", "wgpu", "cuda"];

/// The device of this name, for the argument parser.
fn device(text: &str) -> Result<Device, String> {
    let (name, index) = match text.split_once(':') {
        Some((name, index)) => {
            let index = index.parse::<u16>().map_err(|_| format!("`{index}` is not the number of a device"))?;
            (name, Some(usize::from(index)))
        }
        None => (text, None),
    };
    match name {
        "cpu" if index.is_none() => Ok(Device::flex()),
        #[cfg(feature = "vulkan")]
        "vulkan" => usable(text, Device::vulkan(kind(index))),
        #[cfg(feature = "wgpu")]
        "wgpu" => usable(text, Device::wgpu(kind(index))),
        #[cfg(feature = "cuda")]
        "cuda" => usable(text, Device::cuda(index.unwrap_or(0))),
        _ if CARDS.contains(&name) => {
            Err(format!("this command was built without {name}; build it with `cargo build --features {name}`"))
        }
        _ => Err(format!("no device `{text}`; there are cpu, vulkan, wgpu and cuda, the last three also as vulkan:0")),
    }
}

/// The device, once it has computed something: the framework panics where there is none.
#[cfg(any(feature = "vulkan", feature = "wgpu", feature = "cuda"))]
fn usable(name: &str, device: Device) -> Result<Device, String> {
    use std::panic;

    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let answer = panic::catch_unwind(panic::AssertUnwindSafe(|| {
        burn::tensor::Tensor::<1>::ones([1], &device).sum().into_scalar::<f32>()
    }));
    panic::set_hook(hook);
    match answer {
        Ok(1.0) => Ok(device),
        _ => Err(format!(
            "no device `{name}` on this machine, or none that computes; check its driver, or leave --device out"
        )),
    }
}

/// The numbered one among graphics cards, or the best of all.
#[cfg(any(feature = "vulkan", feature = "wgpu"))]
fn kind(index: Option<usize>) -> DeviceKind {
    index.map_or(DeviceKind::DefaultDevice, DeviceKind::DiscreteGpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_names_and_numbers() {
        assert_eq!(device("cpu").unwrap(), Device::flex());
        let refused = |text: &str| device(text).unwrap_err();
        assert!(refused("tpu").contains("no device `tpu`; there are cpu, vulkan, wgpu and cuda"));
        assert!(refused("cpu:1").contains("no device `cpu:1`"));
        assert!(refused("cuda:first").contains("`first` is not the number of a device"));
        #[cfg(not(feature = "cuda"))]
        assert!(refused("cuda:0").contains("built without cuda; build it with `cargo build --features cuda`"));
    }
}

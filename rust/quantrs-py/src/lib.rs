//! Python module `quantrs._native`: check, release the GIL, call, wrap. Its typed face is `python/quantrs/_native.pyi`.

mod arrays;
mod assembly;
mod awq;
mod cpu;
mod engine;
mod error;
mod files;
mod gguf;
mod imatrix;
mod matmul;
mod packing;
mod safetensors;
mod slices;
mod solvers;

use pyo3::prelude::*;

#[pymodule]
fn _native(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    error::add_classes(m)?;
    m.add_function(wrap_pyfunction!(cpu::levels, m)?)?;
    m.add_function(wrap_pyfunction!(cpu::level, m)?)?;
    m.add_function(wrap_pyfunction!(cpu::default_threads, m)?)?;
    m.add_function(wrap_pyfunction!(cpu::read_bandwidth, m)?)?;
    m.add_class::<cpu::BlockFormat>()?;
    m.add_function(wrap_pyfunction!(cpu::block_formats, m)?)?;
    m.add_function(wrap_pyfunction!(arrays::convert_rows, m)?)?;
    m.add_function(wrap_pyfunction!(arrays::row_errors, m)?)?;
    m.add_function(wrap_pyfunction!(matmul::matmul, m)?)?;
    m.add_function(wrap_pyfunction!(matmul::matmul_i8, m)?)?;
    m.add_function(wrap_pyfunction!(packing::pack_codes, m)?)?;
    m.add_function(wrap_pyfunction!(packing::unpack_codes, m)?)?;
    m.add_function(wrap_pyfunction!(solvers::quantize_groups, m)?)?;
    m.add_function(wrap_pyfunction!(awq::awq_search, m)?)?;
    m.add_function(wrap_pyfunction!(awq::awq_clip, m)?)?;
    m.add_function(wrap_pyfunction!(awq::smooth_scales, m)?)?;
    m.add_function(wrap_pyfunction!(solvers::gptq, m)?)?;
    m.add_class::<solvers::Hessian>()?;
    m.add_class::<gguf::Gguf>()?;
    m.add_class::<gguf::GgufHeader>()?;
    m.add_class::<gguf::TensorInfo>()?;
    m.add_class::<assembly::Part>()?;
    m.add_class::<assembly::AssembledTensor>()?;
    m.add_class::<safetensors::SafeTensors>()?;
    m.add_function(wrap_pyfunction!(safetensors::safetensors_header, m)?)?;
    m.add_class::<imatrix::Imatrix>()?;
    m.add_class::<imatrix::ImatrixSums>()?;
    m.add_class::<files::Progress>()?;
    m.add_class::<files::Sources>()?;
    m.add_class::<files::PartFile>()?;
    m.add_class::<files::TensorWritten>()?;
    m.add_function(wrap_pyfunction!(files::check_tensor, m)?)?;
    m.add_class::<engine::Engine>()?;
    Ok(())
}

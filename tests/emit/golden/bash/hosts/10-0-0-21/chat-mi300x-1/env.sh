# shellcheck shell=bash
# plan d30265402e20e21f, moai-planner 0.1.0, for vLLM 0.32-0.33
# chat-mi300x-1: mixed of chat on 10.0.0.21, mi300x 2, 3, tp2
export HIP_VISIBLE_DEVICES=2,3
export CUDA_VISIBLE_DEVICES=2,3
export VLLM_HTTP_TIMEOUT_KEEP_ALIVE="${VLLM_HTTP_TIMEOUT_KEEP_ALIVE:-120}" # a router keeps connections longer than vLLM's 5 s
export VLLM_ROCM_USE_AITER="${VLLM_ROCM_USE_AITER:-1}" # off by default; the kernels that were planned with
export HIP_FORCE_DEV_KERNARG="${HIP_FORCE_DEV_KERNARG:-1}"
export SAFETENSORS_FAST_GPU="${SAFETENSORS_FAST_GPU:-1}"
export TORCH_BLAS_PREFER_HIPBLASLT="${TORCH_BLAS_PREFER_HIPBLASLT:-1}"
export NCCL_MIN_NCHANNELS="${NCCL_MIN_NCHANNELS:-112}"

# shellcheck shell=bash
# plan d30265402e20e21f, moai-planner 0.1.0, for vLLM 0.32-0.33
# chat-h200-prefill-1: prefill of chat on 10.0.0.11, h200_sxm 2, 3, tp2
export CUDA_DEVICE_ORDER=PCI_BUS_ID
export CUDA_VISIBLE_DEVICES=2,3
export VLLM_HTTP_TIMEOUT_KEEP_ALIVE="${VLLM_HTTP_TIMEOUT_KEEP_ALIVE:-120}" # a router keeps connections longer than vLLM's 5 s
export VLLM_NIXL_SIDE_CHANNEL_HOST=10.0.0.11
export VLLM_NIXL_SIDE_CHANNEL_PORT=5601
export VLLM_KV_CACHE_LAYOUT=HND # tensor-parallel sizes differ in this lane

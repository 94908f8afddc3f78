# shellcheck shell=bash
# plan d30265402e20e21f, moai-planner 0.1.0, for vLLM 0.32-0.33
# reason-h200-0-node0: mixed of reason on 10.0.0.12, h200_sxm 0, 1, 2, 3, 4, 5, 6, 7, tp1-dp16-ep16, node 1 of 2
export CUDA_DEVICE_ORDER=PCI_BUS_ID
export CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7
export VLLM_HTTP_TIMEOUT_KEEP_ALIVE="${VLLM_HTTP_TIMEOUT_KEEP_ALIVE:-120}" # a router keeps connections longer than vLLM's 5 s

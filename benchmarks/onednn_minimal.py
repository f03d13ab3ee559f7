"""
For a report to oneDNN: a weight gradient on AVX2 that writes behind its scratchpad; the process dies at a free.

    ONEDNN_MAX_CPU_ISA=AVX2 MALLOC_CHECK_=3 python benchmarks/onednn_minimal.py

torch 2.13.0 (oneDNN 3.12.0), x86-64, float32, one thread; valgrind names jit_avx2_1x1_convolution_bwd_weights_t. With
AVX-512, contiguous tensors, 8 input channels or stride 1 all is well.
"""

import torch

torch.set_num_threads(1)
convolution = torch.nn.Conv2d(6, 12, 1, stride=2).to(memory_format=torch.channels_last)
images = torch.rand(20, 6, 28, 28).contiguous(memory_format=torch.channels_last)
for _ in range(20):
    convolution(images).sum().backward()
print("sound")

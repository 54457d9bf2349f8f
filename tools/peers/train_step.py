"""PyTorch's side of tools/bench-train: training steps of a UNet2DModel, in plain torch (1.13 and later).

The network is written here from its config.json, with diffusers' parameter names, so that the checkpoint's own tensors
load into it (strictly: a network that differs is an error). A step is what a good training script does on a CPU:
noise onto a batch in memory, bf16 autocast, channels_last, loss in float32, AdamW with its fused loops where this
torch has them. Talks JSON lines: after "ready" each line "N" on stdin runs N steps and answers their seconds.
"""
import argparse
import json
import resource
import struct
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn


class GroupNorm(nn.GroupNorm):
    """Before 2.0 bfloat16 values cannot be normalized with float32 parameters: float32 there, as training scripts of
    that time had it."""

    def forward(self, x):
        return super().forward(x) if torch.__version__ >= '2' else super().forward(x.float()).to(x.dtype)


class Resnet(nn.Module):
    def __init__(self, cin, cout, temb, groups, eps):
        super().__init__()
        self.norm1 = GroupNorm(groups, cin, eps)
        self.conv1 = nn.Conv2d(cin, cout, 3, padding=1)
        self.time_emb_proj = nn.Linear(temb, cout)
        self.norm2 = GroupNorm(groups, cout, eps)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(cin, cout, 1) if cin != cout else None

    def forward(self, x, temb):
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time_emb_proj(F.silu(temb))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + h


class Attention(nn.Module):
    def __init__(self, channels, head, groups, eps):
        super().__init__()
        self.heads = max(channels // head, 1)
        self.group_norm = GroupNorm(groups, channels, eps)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x):
        n, c, h, w = x.shape
        y = self.group_norm(x).view(n, c, h * w).transpose(1, 2)
        q, k, v = (f(y).view(n, h * w, self.heads, -1).transpose(1, 2) for f in (self.to_q, self.to_k, self.to_v))
        if hasattr(F, 'scaled_dot_product_attention'):
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            scores = torch.matmul(q, k.transpose(-1, -2)) * q.shape[-1] ** -0.5
            y = torch.matmul(scores.softmax(-1), v)
        y = self.to_out[0](y.transpose(1, 2).reshape(n, h * w, c))
        return y.transpose(1, 2).reshape(n, c, h, w) + x


class Resample(nn.Module):
    def __init__(self, channels, up):
        super().__init__()
        self.up = up
        self.conv = nn.Conv2d(channels, channels, 3, stride=1 if up else 2, padding=1)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode='nearest') if self.up else x)


class Block(nn.Module):
    """A level of either side, or the middle: resnets, attentions or none, a resampler or none."""

    def __init__(self, sizes, temb, config, attention, down=False, up=False):
        super().__init__()
        groups, eps, head = config['norm_num_groups'], config['norm_eps'], config['attention_head_dim']
        cout = sizes[-1][1]
        self.resnets = nn.ModuleList([Resnet(i, o, temb, groups, eps) for i, o in sizes])
        if attention:
            self.attentions = nn.ModuleList([Attention(cout, head, groups, eps) for _ in range(attention)])
        if down:
            self.downsamplers = nn.ModuleList([Resample(cout, False)])
        if up:
            self.upsamplers = nn.ModuleList([Resample(cout, True)])


class UNet(nn.Module):
    def __init__(self, config):
        super().__init__()
        channels, layers = config['block_out_channels'], config['layers_per_block']
        temb = channels[0] * 4
        self.config = config
        self.conv_in = nn.Conv2d(config['in_channels'], channels[0], 3, padding=1)
        self.time_embedding = nn.Module()
        self.time_embedding.linear_1 = nn.Linear(channels[0], temb)
        self.time_embedding.linear_2 = nn.Linear(temb, temb)
        self.class_embedding = nn.Embedding(config['num_class_embeds'], temb)
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        skips, last = [channels[0]], channels[0]
        for i, (kind, c) in enumerate(zip(config['down_block_types'], channels)):
            down = i + 1 < len(channels)
            sizes = [(last if j == 0 else c, c) for j in range(layers)]
            self.down_blocks.append(Block(sizes, temb, config, layers * ('Attn' in kind), down=down))
            skips += [c] * (layers + down)
            last = c
        self.mid_block = Block([(last, last), (last, last)], temb, config, 1)
        for i, (kind, c) in enumerate(zip(config['up_block_types'], reversed(channels))):
            sizes = []
            for _ in range(layers + 1):
                sizes.append((last + skips.pop(), c))
                last = c
            self.up_blocks.append(Block(sizes, temb, config, (layers + 1) * ('Attn' in kind),
                                        up=i + 1 < len(channels)))
        self.conv_norm_out = GroupNorm(config['norm_num_groups'], last, config['norm_eps'])
        self.conv_out = nn.Conv2d(last, config['out_channels'], 3, padding=1)

    def embed(self, t, labels):
        half = self.config['block_out_channels'][0] // 2
        rate = torch.exp(-torch.log(torch.tensor(1e4)) * torch.arange(half) / (half - self.config['freq_shift']))
        angle = t[:, None].float() * rate
        waves = [angle.cos(), angle.sin()] if self.config['flip_sin_to_cos'] else [angle.sin(), angle.cos()]
        h = F.silu(self.time_embedding.linear_1(torch.cat(waves, 1)))
        return self.time_embedding.linear_2(h) + self.class_embedding(labels)

    def forward(self, x, t, labels):
        temb = self.embed(t, labels)
        x = self.conv_in(x)
        skips = [x]
        for block in self.down_blocks:
            for i, resnet in enumerate(block.resnets):
                x = resnet(x, temb)
                if hasattr(block, 'attentions'):
                    x = block.attentions[i](x)
                skips.append(x)
            if hasattr(block, 'downsamplers'):
                x = block.downsamplers[0](x)
                skips.append(x)
        x = self.mid_block.resnets[0](x, temb)
        x = self.mid_block.resnets[1](self.mid_block.attentions[0](x), temb)
        for block in self.up_blocks:
            for i, resnet in enumerate(block.resnets):
                x = resnet(torch.cat([x, skips.pop()], 1), temb)
                if hasattr(block, 'attentions'):
                    x = block.attentions[i](x)
            if hasattr(block, 'upsamplers'):
                x = block.upsamplers[0](x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


def load(folder):
    with open(f'{folder}/unet/config.json') as file:
        model = UNet(json.load(file))
    with open(f'{folder}/unet/diffusion_pytorch_model.safetensors', 'rb') as file:
        head = json.loads(file.read(struct.unpack('<Q', file.read(8))[0]))
        data = bytearray(file.read())
    head.pop('__metadata__', None)
    tensors = {}
    for name, entry in head.items():
        first, last = entry['data_offsets']
        dtype = {'F32': torch.float32, 'F16': torch.float16, 'BF16': torch.bfloat16}[entry['dtype']]
        tensors[name] = torch.frombuffer(data[first:last], dtype=dtype).float().reshape(entry['shape'])
    model.load_state_dict(tensors)
    return model


def main():
    args = argparse.ArgumentParser()
    args.add_argument('checkpoint')
    args.add_argument('--batch', type=int, required=True)
    args.add_argument('--threads', type=int, required=True)
    args = args.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    model = load(args.checkpoint).to(memory_format=torch.channels_last)
    size, n = model.config['sample_size'], args.batch
    shape = (n, model.config['in_channels'], size, size)
    pictures = (torch.rand((256,) + shape[1:]) * 2 - 1).contiguous(memory_format=torch.channels_last)
    classes = torch.randint(model.config['num_class_embeds'], (256,))
    alphas = torch.cumprod(1 - torch.linspace(1e-4, .02, 1000), 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step():
        pick = torch.randint(256, (n,))
        t = torch.randint(1000, (n,))
        noise = torch.randn(shape).contiguous(memory_format=torch.channels_last)
        a = alphas[t][:, None, None, None]
        noisy = a.sqrt() * pictures[pick] + (1 - a).sqrt() * noise
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            guess = model(noisy, t, classes[pick])
        loss = F.mse_loss(guess.float(), noise)
        loss.backward()
        optimizer.step()
        return loss.item()

    print(json.dumps({'name': f'PyTorch {torch.__version__}', 'ready': True}), flush=True)
    for line in sys.stdin:
        seconds, loss = [], 0
        for _ in range(int(line)):
            begin = time.perf_counter()
            loss = step()
            seconds.append(time.perf_counter() - begin)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({'seconds': seconds, 'loss': loss, 'peak_bytes': peak}), flush=True)


if __name__ == '__main__':
    main()

/** The native build for 64-bit ARM under qemu-user: its kernels against scalar, and a third of the committed pictures
 *  each (emulation is slow), on a CPU that has sdot and on one that has not. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { models } from '../js/common.mjs';
import { hashBy, pictures } from '../js/golden.mjs';
import { beside } from './common.mjs';

const skip = process.arch === 'arm64' && 'this machine is one: the other stages test its build';
const CPUS = [['arm_dotprod', 'max'], ['arm_neon', 'cortex-a53']];
const emulator = cpu => ['qemu-aarch64', '-L', '/usr/aarch64-linux-gnu', '-cpu', cpu];

for (const [i, [kernels, cpu]] of CPUS.entries()) {
  test(`${kernels} equals scalar bit for bit`, { skip }, () => {
    const [qemu, ...args] = [...emulator(cpu), beside('aarch64/tests/test_kernelcheck'), '--rounds=40'];
    const { status, stdout, stderr } = spawnSync(qemu, args, { encoding: 'utf8' });
    assert.equal(status, 0, stdout + stderr);
    assert.match(stdout, new RegExp(`^${kernels} against scalar: [1-9]\\d* same, 0 different$`, 'm'));
  });

  for (const { model: name, request, rgba_fnv1a64: hash } of pictures.filter((_, p) => p % 3 === 1 + i))
    test(`${kernels}: ${name} ${JSON.stringify(request)}`, { skip }, () => {
      const { path } = models.find(m => m.name === name);
      const drawn = hashBy([...emulator(cpu), beside('aarch64/bitbrush')], path, request);
      assert.equal(drawn.hash, hash);
      assert.equal(drawn.kernels, kernels);
    });
}

// Guests of arm64: one stack of two levels serves most tests of this file; three levels take minutes, so they come once.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { hostArch } from '../../src/host/arch.ts'
import { arm64Image } from '../../src/host/probe-arm64.ts'
import { buildImage, writeLayout } from '../image/images.ts'
import { freePort } from '../image/programs.ts'
import { guestFiles } from './guest-files.ts'
import { count, paths, work } from './moves.ts'
import { Home } from './nestvm.ts'
import { checkRecorded } from './recorded.ts'

const home = new Home()
home.ownImages()
const share = join(home.dir, 'share')
const image = `oci:${join(home.dir, 'image')}`
const [l1, l2] = ['a', 'a/l2'] as const
const emulated = hostArch() !== 'arm64'

before(async () => {
  await home.ok('setup', '--arch', 'arm64')
  const busybox = guestFiles('arm64', /^bin\/busybox$/).get('bin/busybox')
  if (!busybox) throw new Error('the guests have no busybox')
  const applets = ['sh', 'cat', 'uname', 'nproc', 'httpd', 'ls']
  const files = [
    { path: 'bin/busybox', data: busybox, mode: 0o755 },
    ...applets.map((name) => ({ path: `bin/${name}`, type: 'symlink' as const, linkPath: 'busybox' })),
    ...['proc', 'sys', 'dev', 'data'].map((path) => ({ path, type: 'directory' as const })),
    { path: 'etc/hello', data: 'hello from the image\n' },
  ]
  const config = { Env: ['PATH=/bin'], Cmd: ['httpd', '-f', '-p', '80', '-h', '/data'] }
  await writeLayout(join(home.dir, 'image'), { latest: buildImage([files], { architecture: 'arm64', config }) })
  mkdirSync(share)
  writeFileSync(join(share, 'index.html'), 'served from the host\n')
})
after(() => home[Symbol.asyncDispose]())

const emulator = async () => {
  const plan = ['run', '--arch', 'arm64', '--accel', 'tcg', '--nested', '--dry-run']
  const { levels } = await home.json<{ levels: { engineCommand: string[] }[] }>(...plan)
  const command = levels[0]?.engineCommand ?? []
  return command.slice(0, command.indexOf('-name'))
}

test('the tiny guest that KVM is tried with runs to its end at either exception level', async () => {
  const [program = '', ...start] = await emulator()
  const path = join(home.dir, 'probe.img')
  writeFileSync(path, arm64Image())
  for (const [virtualization, said] of [
    ['off', 'RL1E'],
    ['on', 'RL2E'],
  ]) {
    const machine = `virt,gic-version=3,virtualization=${virtualization}`
    const options = ['-nodefaults', '-display', 'none', '-no-reboot', '-serial', 'stdio', '-m', '16', '-bios', path]
    const argv = [...start, ...options, '-machine', machine, '-accel', 'tcg', '-cpu', 'max']
    assert.equal(execFileSync(program, argv, { encoding: 'latin1', timeout: 60_000 }), said)
  }
})

test('a guest that was to be a hypervisor and came up at EL1 is refused, with the likely cause', async () => {
  const path = join(home.dir, 'without-el2')
  const script = `#!/bin/bash
exec ${(await emulator()).join(' ')} "\${@/virtualization=on/virtualization=off}"\n`
  writeFileSync(path, script, { mode: 0o755 })
  const run = ['run', '--arch', 'arm64', '--accel', 'tcg', '--no-snapshot', '--nested', '--qemu', path, '--json']
  const { status, stdout } = await home.run([...run, '--', 'true'])
  assert.equal(status, 125)
  const { error } = JSON.parse(stdout)
  assert.equal(error.code, 'NESTED_DISABLED')
  assert.match(error.message, /came up at EL1/)
  assert.match(error.hint, /QEMU 10\.1/)
  assert.match(error.details.log.join('\n'), /HYP mode not available/)
})

test('what cannot be is refused before anything starts', async () => {
  const foreign = buildImage([[{ path: 'etc/hello', data: 'hello\n' }]], { architecture: 'amd64' })
  await writeLayout(join(home.dir, 'foreign'), { latest: foreign })
  const x86 = await home.run(['run', '--arch', 'arm64', '--json', `oci:${join(home.dir, 'foreign')}`])
  assert.equal(JSON.parse(x86.stdout).error.code, 'IMAGE_NO_PLATFORM')
  assert.match(JSON.parse(x86.stdout).error.hint, /--arch x86_64/)
  if (!emulated) return
  const kvm = await home.run(['run', '--arch', 'arm64', '--accel', 'kvm', '--json', '--', 'true'])
  assert.equal(JSON.parse(kvm.stdout).error.code, 'KVM_UNUSABLE')
})

const stack = ['run', '--arch', 'arm64', '--depth', '2', '--cpus', '2', '-v', `${share}:/data`]
let port: number

test('a container runs in a nested guest, with two processors at every level', async () => {
  port = await freePort()
  assert.equal(await home.ok(...stack, '-d', '--name', 'a', '-p', `${port}:80`, image), `${l2}\n`)
  const seen = await home.ok('exec', l2, '--', 'sh', '-c', 'uname -m; nproc; cat /etc/hello')
  assert.equal(seen, 'aarch64\n2\nhello from the image\n')
  for (const machine of [l1, l2]) {
    assert.equal(await home.ok('exec', '--vm', machine, '--', 'sh', '-c', 'uname -m; nproc'), 'aarch64\n2\n')
  }
})

test('a volume and a published port serve the container, and files go in and out', async () => {
  assert.equal(
    await home.ok('exec', l2, '--', 'sh', '-c', 'cat /data/index.html; uname -m > /data/machine'),
    'served from the host\n',
  )
  assert.equal(readFileSync(join(share, 'machine'), 'utf8'), 'aarch64\n')
  assert.equal(await (await fetch(`http://127.0.0.1:${port}/`)).text(), 'served from the host\n')
  await home.ok('cp', join(share, 'index.html'), `${l2}:/etc/copy`)
  await home.ok('cp', `${l2}:/etc/copy`, join(home.dir, 'back'))
  assert.equal(readFileSync(join(home.dir, 'back'), 'utf8'), 'served from the host\n')
})

test('ls tells the architecture, and only guests of it start in a guest', async () => {
  const machines = await home.json<{ machine: string; arch: string; cpus: number }[]>('ls')
  assert.deepEqual(
    machines.map(({ machine, arch, cpus }) => [machine, arch, cpus]),
    [l1, l2].map((machine) => [machine, 'arm64', 2]),
  )
  const { stdout } = await home.run(['run', '--arch', 'x86_64', '--on', l1, '--json', '--', 'true'])
  assert.equal(JSON.parse(stdout).error.code, 'UNSUPPORTED_ARCH')
})

test('an emulated hypervisor is not saved, since its timer would be lost', async (t) => {
  if (!emulated) return t.skip('level 1 may run on KVM')
  const { stdout } = await home.run(['snapshot', 'create', l1, '--json'])
  const { code, message } = JSON.parse(stdout).error
  assert.deepEqual([code, /rule ([a-z0-9-]+)/.exec(message)?.[1]], ['NESTED_STATE_LOST', 'emulated-arm64'])
})

test('doctor tries KVM in a guest by the emulator of its architecture', async () => {
  const { stdout } = await home.run(['doctor', '--on', l1, '--json'])
  interface Examined {
    kvm?: { usable: boolean; nestingRefused?: string }
  }
  const { machines }: { machines: Examined[] } = JSON.parse(stdout)
  assert.equal(machines[1]?.kvm?.usable, true)
  assert.equal(machines[1].kvm.nestingRefused, undefined)
})

test('the collector finds NV2 at level 1, and none in a guest that was not given EL2', async () => {
  await checkRecorded(home, l1, 'arm64-l1-nv2')
  await checkRecorded(home, l2, 'arm64-l2-without-el2')
})

test('stop ends all levels and leaves nothing', async () => {
  await home.ok('stop', l1)
  assert.deepEqual(await home.traces(), [])
})

test('a guest that is no hypervisor has a warm start', async () => {
  const timed = async () => {
    const begun = performance.now()
    assert.equal(await home.ok('run', '--arch', 'arm64', '--cpus', '2', '--', 'nproc'), '2\n')
    return performance.now() - begun
  }
  const coldMs = await timed()
  const warmMs = await timed()
  assert.ok(warmMs < coldMs / 2, `${warmMs} ms, cold ${coldMs} ms`)
  assert.deepEqual(await home.traces(), [])
})

test('a guest goes on in another guest hypervisor', async () => {
  const start = ['run', '-d', '--arch', 'arm64', '--nested', '--memory', '1G', '--name']
  await Promise.all(['from', 'to'].map((name) => home.ok(...start, name)))
  await home.ok('run', '-d', '--on', 'from', '--name', 'x', '--memory', '256M')
  await home.ok('exec', 'from/x', '--', 'sh', '-c', work)
  const counted = await count(home, 'from/x')
  await home.ok('migrate', 'from/x', '--to', 'to')
  assert.deepEqual(await paths(home), ['from', 'to', 'to/x'])
  assert.ok((await count(home, 'to/x')) > counted)
  await home.ok('rm', '-f', 'from', 'to')
})

test('three levels with two processors each run a container, and their kernels prove the nesting', async () => {
  const deep = ['d', 'd/l2', 'd/l2/l3'] as const
  const run = ['run', '--arch', 'arm64', '-d', '--no-snapshot', '--depth', '3', '--cpus', '2', '--name', 'd']
  assert.equal(await home.ok(...run, image), `${deep[2]}\n`)
  const seen = await home.ok('exec', deep[2], '--', 'sh', '-c', 'uname -m; nproc; cat /etc/hello')
  assert.equal(seen, 'aarch64\n2\nhello from the image\n')
  interface Level {
    accel: string
    seen: { extension?: string; hypervisor?: string; log: string[] }
    counters?: { exits: number }
  }
  const { levels } = await home.json<{ levels: Level[] }>('inspect', deep[2])
  for (const { seen } of levels.slice(0, 2)) {
    assert.equal(seen.extension, 'nv2')
    assert.match(seen.log.join('\n'), /All CPU\(s\) started at EL2/)
    assert.match(seen.log.join('\n'), /VHE\+NV2 mode initialized/)
  }
  assert.equal(levels[2]?.seen.extension, undefined)
  assert.match(levels[2]?.seen.log.join('\n') ?? '', /started at EL1[\s\S]*HYP mode not available/)
  for (const { accel, seen, counters } of levels.slice(1)) {
    assert.equal(accel, 'kvm')
    assert.equal(seen.hypervisor, 'KVM')
    assert.ok((counters?.exits ?? 0) > 1000)
  }
  for (const machine of deep.slice(0, 2)) assert.equal(await home.ok('exec', machine, '--', 'nproc'), '2\n')
  await home.ok('rm', '-f', deep[0])
  assert.deepEqual(await home.traces(), [])
})

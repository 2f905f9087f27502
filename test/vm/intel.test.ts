// An Intel processor that Bochs emulates. Its guests' speed is a fraction of QEMU's: there are two levels, and few of them.
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { busyboxImage } from './busybox-image.ts'
import { enginesOf, finished, Home, said } from './nestvm.ts'
import { checkRecorded } from './recorded.ts'

const home = new Home()
home.ownImages()
const intel = ['--cpu-vendor', 'intel', '--accel', 'tcg']
const share = join(home.dir, 'share')
const image = `oci:${join(home.dir, 'image')}`

before(async () => {
  await home.ok('setup', '--cpu-vendor', 'intel')
  await busyboxImage(join(home.dir, 'image'), ['sh', 'cat'])
  mkdirSync(share)
  writeFileSync(join(share, 'note'), 'written on the host\n')
})
after(() => home[Symbol.asyncDispose]())

interface Seen {
  levels: {
    accel: string
    engine: string
    seen: { extension?: string; hypervisor?: string; parameters: Record<string, string> }
    counters?: { exits: number }
  }[]
}

test('L1 has VMX with EPT and VMCS shadowing, and L2 in it runs commands and is a hypervisor itself', async (t) => {
  t.after(() => home.run(['rm', '-f', 'a']))
  const path = await home.ok('run', ...intel, '--depth', '2', '--nested', '-d', '--name', 'a')
  assert.equal(path.trim(), 'a/l2')
  assert.equal(await home.ok('exec', 'a/l2', '--', 'sh', '-c', 'echo from L2'), 'from L2\n')

  const [l1, l2] = (await home.json<Seen>('inspect', 'a/l2')).levels
  assert.deepEqual([l1?.accel, l1?.engine, l2?.accel, l2?.engine], ['tcg', 'bochs', 'kvm', 'qemu'])
  for (const level of [l1, l2]) {
    assert.equal(level?.seen.extension, 'vmx')
    const on = ['nested', 'ept', 'enable_shadow_vmcs'].map((name) => [`kvm_intel.${name}`, 'Y'])
    assert.deepEqual(level?.seen.parameters, Object.fromEntries(on))
  }
  assert.equal(l1?.seen.hypervisor, undefined)
  assert.equal(l2?.seen.hypervisor, 'KVMKVMKVM')
  assert.ok((l2?.counters?.exits ?? 0) > 1000)

  for (const [command, lack] of [
    [['console', 'a'], /Bochs cannot offer a console/],
    [['logs', 'a'], /Bochs cannot keep what a detached command writes/],
    [['snapshot', 'create', 'a'], /Bochs cannot save a level 1 guest/],
    [['run', '--on', 'a', image, '--', 'cat', '/etc/hello'], /Bochs cannot attach disks while/],
  ] as const) {
    const { status, stderr } = await home.run([...command])
    assert.match(stderr, lack)
    assert.equal(status, 2)
  }
  await checkRecorded(home, 'a', 'intel-l1-bochs')
  await checkRecorded(home, 'a/l2', 'intel-l2-nested')
  await home.ok('stop', 'a')
  assert.deepEqual(await home.traces(), [])
})

for (const depth of ['1', '2']) {
  test(`a container in L${depth} reads its image and writes to a directory of the host`, async () => {
    const script = `cat /etc/hello /data/note; echo written in L${depth} > /data/answer`
    const run = ['run', ...intel, '--depth', depth, '-v', `${share}:/data`, image, '--', 'sh', '-c', script]
    const { status, stdout, stderr } = await home.run(run)
    assert.equal(stdout, 'hello from the image\nwritten on the host\n', stderr)
    assert.equal(status, 0)
    assert.match(stderr, /no way out to the network: Bochs/)
    assert.equal(readFileSync(join(share, 'answer'), 'utf8'), `written in L${depth}\n`)
    assert.deepEqual(await home.traces(), [])
  })
}

test('after kill -9 of nestvm nothing of L1 is left, and the next command removes its files', async () => {
  const child = home.start('run', ...intel, '--', 'sh', '-c', 'echo ready; sleep 1000')
  const ended = finished(child)
  await said(child, 'ready')
  assert.equal(enginesOf(home.dir).length, 1)
  child.kill('SIGKILL')
  await ended
  for (let turn = 0; turn < 100 && enginesOf(home.dir).length > 0; turn++) await sleep(50)
  assert.deepEqual(enginesOf(home.dir), [])
  await home.ok('ls')
  assert.deepEqual(await home.traces(), [])
})

test('a kernel that panics ends its machine, which is told with the reason', async () => {
  const child = home.run(['run', ...intel, '--', 'sh', '-c', 'echo c > /proc/sysrq-trigger; sleep 1000'])
  const { status, stderr } = await child
  assert.equal(status, 125)
  assert.match(stderr, /its engine ended while it ran/)
  assert.match(stderr, /Kernel panic - not syncing: sysrq triggered crash/)
  assert.deepEqual(await home.traces(), [])
})

test('what Bochs cannot do, and what no processor of a vendor can be had for, is refused before anything starts', async () => {
  for (const [options, capability] of [
    [['--cpus', '2'], 'several-cpus'],
    [['--memory', '3G'], 'much-memory'],
    [['--disk', '1G'], 'writable-disk'],
    [['-d'], 'detached-command'],
  ] as const) {
    const { stdout } = await home.run(['run', ...intel, ...options, '--json', '--', 'true'])
    const { error } = JSON.parse(stdout)
    assert.deepEqual([error.code, error.details.capability], ['ENGINE_CANNOT', capability])
  }
  const arm64 = await home.run(['run', '--cpu-vendor', 'intel', '--arch', 'arm64', '--json', '--', 'true'])
  assert.equal(JSON.parse(arm64.stdout).error.code, 'UNSUPPORTED')
})

import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { generateKeyPair } from '../../src/machine/keys.ts'
import { Home } from './nestvm.ts'
import { SshServer, trust } from './ssh-server.ts'

// One emulated AMD machine serves all tests of this file: its kvm_amd is a module, as on hardware.
const home = new Home()
const sh = (script: string) => home.ok('exec', 'amd', '--', 'sh', '-c', script)
const nested = async () => (await sh('cat /sys/module/kvm_amd/parameters/nested')).trim()
const ownFile = '/etc/modprobe.d/zz-nestvm.conf'

before(async () => {
  await home.ok('run', '-d', '--nested', '--name', 'amd', '--memory', '1536M')
  // The ssh server listens before the modules are loaded.
  while ((await sh('test -e /run/nestvm/hypervisor && echo ready || true')) === '') await sleep(200)
  await sh('modprobe -r kvm_amd && modprobe kvm_amd nested=0')
})
after(() => home[Symbol.asyncDispose]())

interface Shown {
  applied: boolean
  plans: {
    platform: string
    effect: string
    steps: { kind: string; argv?: string[]; path?: string }[]
    notes: string[]
  }[]
}

test('a dry run shows what would be done, and does nothing', async () => {
  const text = await home.ok('enable', '--on', 'amd', '--dry-run')
  assert.match(text, /kvm_amd is loaded with nested=0/)
  assert.match(text, /\+options kvm_amd nested=1/)
  assert.match(text, /run modprobe -r kvm_amd:/)
  const shown = await home.json<Shown>('enable', '--on', 'amd', '--dry-run')
  assert.deepEqual(
    [shown.applied, shown.plans.map(({ platform, effect }) => [platform, effect])],
    [false, [['amd', 'now']]],
  )
  assert.equal(await nested(), '0')
  assert.equal(await sh('ls -A /etc/modprobe.d 2>/dev/null || true'), '')
})

test('without a terminal to ask on nothing is done', async () => {
  const { status, stdout } = await home.run(['enable', '--on', 'amd', '--json'])
  assert.deepEqual([status, JSON.parse(stdout).error.code], [125, 'NOT_CONFIRMED'])
  assert.equal(await nested(), '0')
})

test('while a guest runs, KVM is left alone, and who uses it is said', async () => {
  await home.ok('run', '-d', '--on', 'amd', '--name', 'inner', '--memory', '160M')
  const shown = await home.json<Shown>('enable', '--on', 'amd', '--yes')
  assert.equal(shown.plans[0]?.effect, 'reload')
  assert.match(shown.plans[0]?.notes.join() ?? '', /in use by qemu-system-x86_64 \(\d+\)/)
  assert.equal(await nested(), '0')
  assert.equal(await home.ok('exec', 'amd/inner', '--', 'echo', 'alive'), 'alive\n')
  await home.ok('rm', '-f', 'amd/inner')
  await home.ok('enable', '--on', 'amd', '--undo', '--yes')
  assert.equal(await sh(`test -e ${ownFile} && echo there || true`), '')
})

test('nesting is turned on, for good, and a second time changes nothing', async () => {
  await home.ok('enable', '--on', 'amd', '--yes')
  assert.equal(await nested(), '1')
  const again = await home.json<Shown>('enable', '--on', 'amd', '--yes')
  assert.deepEqual([again.applied, again.plans[0]?.steps], [false, []])
  // What the file says counts whenever the module is loaded.
  await sh('modprobe -r kvm_amd && modprobe kvm_amd')
  assert.equal(await nested(), '1')
})

test('with it, the guests of the machine are hypervisors', async () => {
  const inner = ['run', '--on', 'amd', '--nested', '--memory', '640M', '--', 'grep', '-c', '-w', 'svm', '/proc/cpuinfo']
  assert.equal(await home.ok(...inner), '1\n')
})

test('undone, all is as it was', async () => {
  await home.ok('enable', '--on', 'amd', '--undo', '--yes')
  assert.equal(await nested(), '0')
  assert.equal(await sh(`ls -A /etc/modprobe.d /var/lib/nestvm/enable | grep -v : | grep . || true`), '')
  const { status, stdout } = await home.run(['enable', '--on', 'amd', '--undo', '--yes', '--json'])
  assert.deepEqual([status, JSON.parse(stdout).error.code], [125, 'NOTHING_TO_UNDO'])
})

test('the module can be turned on again when it is not loaded at all', async () => {
  await sh('modprobe -r kvm_amd')
  await home.ok('enable', '--on', 'amd', '--platform', 'amd', '--yes')
  assert.equal(await nested(), '1')
})

test('a system on another host is enabled over ssh, and undone', async () => {
  const there = new SshServer(join(home.dir, 'there'), generateKeyPair('me'))
  after(() => there.close())
  await there.listen()
  trust(there, home)
  const root = join(home.dir, 'system')
  const grub = join(root, 'etc/default/grub')
  mkdirSync(join(grub, '..'), { recursive: true })
  writeFileSync(grub, 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n')
  const request = ['enable', '--on', there.url, '--root', root]
  await home.ok(...request, '--platform', 'arm64', '--yes')
  assert.equal(readFileSync(grub, 'utf8'), 'GRUB_CMDLINE_LINUX_DEFAULT="quiet kvm-arm.mode=nested"\n')
  await home.ok(...request, '--undo', '--yes')
  assert.equal(readFileSync(grub, 'utf8'), 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n')
})

import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import type { Judgement } from '../../src/host/checks/judge.ts'
import { Home } from './nestvm.ts'
import { checkRecorded, collectFacts } from './recorded.ts'

// One guest hypervisor, emulated wherever this runs, with another one in it, serves all tests of this file.
const home = new Home()
before(async () => {
  await home.ok('run', '-d', '--nested', '--accel', 'tcg', '--memory', '1500M', '--name', 'outer')
  await home.ok('run', '-d', '--nested', '--on', 'outer', '--name', 'inner', '--memory', '800M')
})
after(() => home[Symbol.asyncDispose]())

async function doctor(...args: string[]): Promise<Judgement & { status: number | null }> {
  const { status, stdout, stderr } = await home.run(['doctor', '--json', ...args])
  const said = JSON.parse(stdout)
  assert.equal(said.error, undefined, stderr)
  return { ...said, status }
}

function ids(judgement: Judgement, machine: string): string[] {
  return judgement.machines.find((one) => one.machine === machine)?.findings.map(({ id }) => id) ?? []
}

test('what doctor says of this host is what a run then does', async () => {
  const judgement = await doctor('--depth', '2')
  const { levels } = await home.json<{ levels: { accel: string }[] }>('run', '--depth', '2', '--dry-run')
  assert.equal(judgement.reach, levels[0]?.accel === 'kvm' ? 'kvm' : 'emulated')
  assert.equal(judgement.status, judgement.reach === 'kvm' ? 0 : 3)
  assert.equal(judgement.because.length > 0, judgement.reach !== 'kvm')
})

test('more than the memory allows is refused, here and in a guest', async () => {
  const here = await doctor('--depth', '100000')
  assert.deepEqual([here.status, here.reach], [1, 'no'])
  assert.ok(here.because.includes('depth-memory'))
  const inner = await doctor('--on', 'outer/inner', '--depth', '3')
  assert.deepEqual([inner.status, inner.because], [1, ['depth-memory']])
})

test('in an emulated guest hypervisor, and in one inside it, KVM runs a tiny guest and nests', async () => {
  const judgement = await doctor('--on', 'outer/inner', '--depth', '1')
  assert.deepEqual(
    judgement.machines.map(({ machine, level }) => [machine, level]),
    [
      ['host', 0],
      ['outer', 1],
      ['outer/inner', 2],
    ],
  )
  for (const machine of ['outer', 'outer/inner']) {
    const found = ids(judgement, machine)
    for (const id of ['amd-extension', 'amd-nested', 'amd-npt', 'kvm-works']) {
      assert.ok(found.includes(id), `${machine}: ${found.join(' ')}`)
    }
    assert.ok(!judgement.machines.some((one) => one.level > 0 && one.findings.some(({ stops }) => stops)))
  }
  assert.deepEqual([judgement.status, judgement.reach], [0, 'kvm'])
})

test('what the collector finds at each level is what was recorded', async () => {
  await checkRecorded(home, 'outer', 'amd-l1-emulated')
  await checkRecorded(home, 'outer/inner', 'amd-l2-nested')
})

test('KVM counts the guest that runs in it, and nested entries once that one has run a guest', async () => {
  const { kvm } = await collectFacts(home, '--on', 'outer')
  assert.equal(kvm.runningVms, 1)
  assert.ok((kvm.counters?.nestedRun ?? 0) > 0, JSON.stringify(kvm.counters))
})

test('facts that were saved are judged like the machines that they are of, and alike each time', async () => {
  const path = join(home.dir, 'outer.json')
  writeFileSync(path, await home.ok('doctor', '--facts-only', '--on', 'outer'))
  const first = await home.run(['doctor', '--facts', path])
  const second = await home.run(['doctor', '--facts', path])
  assert.deepEqual(first, second)
  assert.equal(first.status, 0)
  assert.match(first.stdout, /^L1 {2}outer/)
  const { stdout } = await home.run(['doctor', '--json', '--facts', '/etc/passwd'])
  assert.equal(JSON.parse(stdout).error.code, 'BAD_FACTS')
})

test("a run is planned for another machine by its facts, within ACRN's limits where it is its Service VM", async () => {
  const path = join(import.meta.dirname, '../facts/acrn-service-vm.json')
  type Plan = { levels: { accel: string; engineCommand: string[] }[] }
  const { levels } = await home.json<Plan>('run', '--dry-run', '--facts', path)
  assert.deepEqual(
    levels.map(({ accel }) => accel),
    ['kvm'],
  )
  const argv = levels[0]?.engineCommand ?? []
  assert.equal(argv[argv.indexOf('-cpu') + 1], 'host')
  assert.ok(argv.includes('-nographic'))
  assert.equal((await home.run(['run', '--facts', path, '--', 'true'])).status, 2)
})

test('a guest that is no hypervisor says so, and how one is started', async () => {
  await home.ok('run', '-d', '--accel', 'tcg', '--memory', '1G', '--name', 'plain')
  const { status, because, machines } = await doctor('--on', 'plain', '--depth', '1')
  assert.deepEqual([status, because], [1, ['amd-hidden']])
  const finding = machines.at(-1)?.findings.find(({ id }) => id === 'amd-hidden')
  assert.match(finding?.mend?.lasting?.[0] ?? '', /--nested/)
  await home.ok('rm', '-f', 'plain')
})

test('nesting that is off in a guest is found, and mended by the commands that doctor shows', async () => {
  await home.ok('rm', '-f', 'outer/inner')
  const exec = (command: string) => home.ok('exec', 'outer', '--', 'sh', '-c', command)
  await exec('modprobe -r kvm_amd && modprobe kvm_amd nested=0')
  const off = await doctor('--on', 'outer', '--depth', '2')
  assert.deepEqual([off.status, off.because], [1, ['amd-nested-off']])
  assert.equal((await doctor('--on', 'outer', '--depth', '1')).status, 0)

  const finding = off.machines.at(-1)?.findings.find(({ id }) => id === 'amd-nested-off')
  await exec((finding?.mend?.now ?? []).map((command) => command.replace(/^sudo /, '')).join(' && '))
  assert.equal((await doctor('--on', 'outer', '--depth', '2')).status, 0)

  await exec('modprobe -r kvm_amd')
  const gone = await doctor('--on', 'outer', '--depth', '1')
  assert.deepEqual([gone.status, gone.because], [1, ['amd-module-missing']])
})

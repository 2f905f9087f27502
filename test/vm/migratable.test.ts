import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Home } from './nestvm.ts'

// Two emulated guests play two hosts with different processors: h1 has all that QEMU emulates, h2 an old Opteron's.

const home = new Home()
before(async () => {
  await home.ok('run', '-d', '--nested', '--memory', '1500M', '--name', 'h1')
  await home.ok('run', '-d', '--nested', '--memory', '1500M', '--name', 'h2', '--migratable=Opteron_G2')
})
after(() => home[Symbol.asyncDispose]())

interface Refusal {
  code: string
  message: string
  hint: string
  details: { rule?: string; missing?: string[]; offered?: string[] }
}

async function refusal(...args: string[]): Promise<Refusal> {
  const { status, stdout } = await home.run([...args, '--json'])
  assert.notEqual(status, 0, stdout)
  return JSON.parse(stdout).error
}

const machines = async () =>
  (await home.json<{ machine: string }[]>('ls', '--all')).map(({ machine }) => machine).sort()

async function modelOf(path: string): Promise<string | undefined> {
  const { levels } = await home.json<{ levels: { cpuModel?: string }[] }>('inspect', path)
  return levels.at(-1)?.cpuModel
}

/** A tiny guest runs through its KVM; and what doctor says of guests with guests there. */
async function kvmIn(path: string): Promise<{ works: boolean; nestedState: string | undefined }> {
  const { stdout } = await home.run(['doctor', '--on', path, '--json'])
  const { machines } = JSON.parse(stdout)
  const findings: { id: string; means: string }[] = machines.at(-1).findings
  const nestedState = findings.find(({ id }) => id === 'nested-state')?.means
  return { works: findings.some(({ id }) => id === 'kvm-works'), nestedState }
}

test('a model that is not there, or not whole, is refused before anything starts, with what is missing and what there is', async () => {
  const unknown = await refusal('run', '--on', 'h1', '--migratable=nope', '-d')
  assert.equal(unknown.code, 'CPU_MODEL_NOT_OFFERED')
  assert.ok(unknown.details.offered?.includes('qemu64-v1'), JSON.stringify(unknown))
  const genoa = await refusal('run', '--on', 'h1', '--migratable=EPYC-Genoa', '-d')
  assert.equal(genoa.code, 'CPU_MODEL_NOT_OFFERED')
  assert.ok(genoa.details.missing?.includes('avx512f'), JSON.stringify(genoa))
  assert.equal((await refusal('run', '--migratable=Opteron_G3', '-d')).details.missing?.join(), 'misalignsse')
  assert.deepEqual(await machines(), ['h1', 'h2'])
})

test('without a model it is the nearest to the machine, and a plan shows it', async () => {
  const plan = ['run', '--on', 'h1', '--migratable', '--nested', '--dry-run']
  const { levels } = await home.json<{ levels: { cpuModel: string; engineCommand: string[] }[] }>(...plan)
  const { cpuModel = '', engineCommand = [] } = levels[0] ?? {}
  assert.match(cpuModel, /^EPYC-v1,.*\bsvm=on,npt=on\b/)
  assert.equal(engineCommand[engineCommand.indexOf('-cpu') + 1], `${cpuModel},enforce`)
})

test('a guest hypervisor with a named model moves between processors that differ, and nests on; others are refused', async () => {
  const model = 'Opteron_G2-v1,tsc-deadline=on,svm=on,npt=on,vme=off'
  await home.ok('run', '-d', '--on', 'h1', '--name', 'all', '--memory', '256M')
  const nested = ['--nested', '--memory', '500M']
  await home.ok('run', '-d', '--on', 'h1', '--name', 'named', ...nested, '--migratable=Opteron_G2,vme=off')
  assert.equal(await modelOf('h1/named'), model)

  const fewer = await refusal('migrate', 'h1/all', '--to', 'h2', '--force')
  assert.deepEqual([fewer.code, fewer.details.rule], ['PROCESSOR_MISMATCH', 'fewer-features'])
  assert.match(fewer.message, /avx2/)
  assert.match(fewer.hint, /--migratable/)
  await home.ok('rm', '-f', 'h1/all')

  await home.ok('exec', 'h1/named', '--', 'sh', '-c', 'echo kept > /tmp/kept')
  await home.ok('migrate', 'h1/named', '--to', 'h2')
  assert.deepEqual(await machines(), ['h1', 'h2', 'h2/named'])
  assert.equal(await home.ok('exec', 'h2/named', '--', 'cat', '/tmp/kept'), 'kept\n')
  assert.equal(await modelOf('h2/named'), model)
  const { works, nestedState } = await kvmIn('h2/named')
  assert.ok(works, 'its KVM runs a guest there')
  assert.match(nestedState ?? '', /rule amd-live/)
})

test('a model that the other side lacks is refused before anything is sent', async () => {
  await home.ok('run', '-d', '--on', 'h1', '--name', 'nearest', '--memory', '256M', '--migratable')
  const lacking = await refusal('migrate', 'h1/nearest', '--to', 'h2', '--force')
  assert.deepEqual([lacking.code, lacking.details.rule], ['PROCESSOR_MISMATCH', 'model-lacking'])
  assert.match(lacking.message, /EPYC-v1 without .*avx2/)
  assert.equal(await home.ok('exec', 'h1/nearest', '--', 'echo', 'there'), 'there\n')
  await home.ok('rm', '-f', 'h1', 'h2')
  assert.deepEqual(await home.traces(), [])
})

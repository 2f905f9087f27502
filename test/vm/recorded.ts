import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { judge } from '../../src/host/checks/judge.ts'
import { hypervisorSignature } from '../../src/host/facts/cpuid.ts'
import { type Facts, factsSchema } from '../../src/host/facts/schema.ts'
import type { Home } from './nestvm.ts'

export async function collectFacts(home: Home, ...args: string[]): Promise<Facts> {
  return factsSchema.parse(JSON.parse(await home.ok('doctor', '--facts-only', ...args)))
}

/** What the collector finds on a machine is what was recorded of it. UPDATE_GOLDEN=1 records it anew. */
export async function checkRecorded(home: Home, machine: string, name: string): Promise<void> {
  const path = join(import.meta.dirname, '../facts', `${name}.json`)
  const now = await collectFacts(home, '--on', machine)
  if (process.env.UPDATE_GOLDEN) writeFileSync(path, `${JSON.stringify(now, null, 2)}\n`)
  const before = factsSchema.parse(JSON.parse(readFileSync(path, 'utf8')))
  assert.deepEqual(stable(now), stable(before), machine)
  assert.deepEqual(found(now), found(before), machine)
}

function found(facts: Facts): string[] {
  return judge([facts], { depth: 2, neededMiB: 1 }).machines.flatMap(({ findings }) => findings.map(({ id }) => id))
}

/** What does not depend on the host's processor, on the time, or on versions. */
function stable(facts: Facts) {
  const { arch, origin, level, machine, kvm, cpu, user, gic } = facts
  const module = kvm.modules.kvm_amd ?? kvm.modules.kvm_intel
  return {
    ...{ arch, origin, level, machine, user, gic },
    vendor: cpu.vendor,
    extensions: ['svm', 'vmx', 'ept', 'npt'].filter((flag) => cpu.flags.includes(flag)),
    features: cpu.cpuid['8000000a:0'],
    vmx: cpu.vmxFlags,
    signature: hypervisorSignature(facts),
    parameters: module?.parameters,
    loadable: kvm.loadable,
    device: kvm.device,
    createVm: kvm.createVm,
    registered: kvm.registered,
    probe: facts.probe?.code,
  }
}

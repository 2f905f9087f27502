import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { readFacts } from '../facts/file.ts'
import type { Facts } from '../facts/schema.ts'
import { judge } from './judge.ts'

const documents = fileURLToPath(new URL('../../../test/facts', import.meta.url))
const facts = (name: string) => readFacts(join(documents, `${name}.json`))
const question = (depth: number) => ({ depth, neededMiB: 192 + 320 * depth })

test('a machine that offers no nesting is good for one level', async () => {
  const machine = await facts('intel-nested-off-in-use')
  assert.equal(judge([machine], question(1)).reach, 'kvm')
  const two = judge([machine], question(2))
  assert.deepEqual([two.reach, two.because], ['emulated', ['intel-nested-off']])
})

test('a guest cannot be emulated: what stops it there stops it', async () => {
  const outer = await facts('amd-l1-emulated')
  const off: Facts = structuredClone(outer)
  Object.assign(off.kvm.modules.kvm_amd?.parameters ?? {}, { nested: '0' })
  assert.equal(judge([outer], question(2)).reach, 'kvm')
  assert.equal(judge([off], question(1)).reach, 'kvm')
  assert.equal(judge([off], question(2)).reach, 'no')
})

test('in a chain only the last machine decides, and findings speak of its levels', async () => {
  const chain = await Promise.all(['kvm-pvm-host', 'amd-l1-emulated'].map(facts))
  const judgement = judge(chain, question(2))
  assert.equal(judgement.reach, 'kvm')
  assert.deepEqual(
    judgement.machines.map(({ level }) => level),
    [0, 1],
  )
  const nested = judgement.machines[1]?.findings.find(({ id }) => id === 'amd-nested')
  assert.match(nested?.means ?? '', /guests of L1 \(L2\).*\(L3\)/)
})

test('memory that does not suffice is no matter of emulation', async () => {
  const machine = await facts('intel-ready')
  const short = judge([machine], { depth: 3, neededMiB: machine.memory.availableMiB + 1 })
  assert.deepEqual([short.reach, short.because], ['no', ['depth-memory']])
  assert.equal(judge([machine], { depth: 3, neededMiB: machine.memory.availableMiB }).reach, 'kvm')
})

test('deep stacks are warned of, on arm64 where a fourth level was not seen to boot', async () => {
  const ids = async (name: string, depth: number) =>
    judge([await facts(name)], question(depth)).machines[0]?.findings.map(({ id }) => id) ?? []
  assert.ok((await ids('intel-ready', 3)).includes('depth-exits'))
  assert.ok(!(await ids('intel-ready', 2)).includes('depth-exits'))
  assert.ok((await ids('arm64-graviton3-nested', 4)).includes('depth-arm64'))
  assert.ok(!(await ids('arm64-graviton3-nested', 3)).includes('depth-arm64'))
})

test('a KVM that nobody has tried is not counted on', async () => {
  const { probe: _, ...untried } = await facts('intel-ready')
  assert.deepEqual(judge([untried], question(1)).because, ['kvm-untested'])
})

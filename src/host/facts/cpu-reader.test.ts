import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { LocalMachine } from '../../machine/local.ts'
import { run } from '../../machine/run.ts'
import { capabilities, cpuReader, leaves, readCpuWords, readLeaves } from './cpu-reader.ts'

const answers = Object.keys(capabilities).length

/** What the program would write for these leaves, and after them. */
function words(known: Record<number, number[]>, ...after: number[]): number[] {
  return [...leaves.flatMap(([leaf]) => known[leaf] ?? [7, 7, 7, 7]), ...after]
}

const amd = { 0: [1, 0x68747541, 0x444d4163, 0x69746e65], 1: [0, 0, 0, 0], 2147483648: [0x80000001, 0, 0, 0] }

test('a leaf beyond the highest of its range is left out: the processor answers there with another one', () => {
  const read = readLeaves(words(amd))
  assert.deepEqual(Object.keys(read), ['0:0', '1:0', '80000000:0', '80000001:0'])
  assert.equal(read['0:0'], '00000001 68747541 444d4163 69746e65')
})

test("a hypervisor's leaves count only where the processor says that there is one", () => {
  const signature = [0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d]
  const with0 = { ...amd, 1073741824: signature }
  assert.ok(!('40000000:0' in readLeaves(words(with0))))
  const read = readLeaves(words({ ...with0, 1: [0, 0, 0x80000000, 0] }))
  assert.ok('40000000:0' in read && '40000001:0' in read && !('40000003:0' in read))
})

test('why /dev/kvm does not open is told by the name of the error', () => {
  assert.equal(readCpuWords(words(amd, 2 ** 32 - 13))?.openError, 'EACCES')
  assert.equal(readCpuWords(words(amd, 2 ** 32 - 2))?.openError, 'ENOENT')
})

test('a VM that cannot be created is told from one that can', () => {
  const capable = Array.from({ length: answers }, (_, index) => index)
  const busy = readCpuWords(words(amd, 3, ...capable, 2 ** 32 - 16))
  assert.equal(busy?.createVm, 'EBUSY')
  assert.equal(busy?.capabilities?.nrVcpus, 0)
  assert.equal(busy?.capabilities?.armEl2E2h0, answers - 1)
  assert.equal(readCpuWords(words(amd, 3, ...capable, 4))?.createVm, 'ok')
})

test('a program that was stopped half way tells nothing', () => {
  assert.equal(readCpuWords(words(amd)), undefined)
  assert.equal(readCpuWords([]), undefined)
})

test('the program runs here, and reads the vendor that the kernel shows', async (t) => {
  if (process.arch !== 'x64') return t.skip('it is a program for x86-64')
  const dir = mkdtempSync(join(tmpdir(), 'reader-'))
  try {
    const path = join(dir, 'reader')
    writeFileSync(path, cpuReader(), { mode: 0o700 })
    const { stdout } = await run(new LocalMachine(), ['sh', '-c', '"$0" | od -An -v -tx4', path])
    const read = readCpuWords(
      stdout
        .trim()
        .split(/\s+/)
        .map((word) => Number.parseInt(word, 16)),
    )
    const [, ebx = '', ecx = '', edx = ''] = read?.leaves['0:0']?.split(' ') ?? []
    const vendor = [ebx, edx, ecx].map((word) => Buffer.from(word, 'hex').reverse().toString()).join('')
    assert.match(readFileSync('/proc/cpuinfo', 'utf8'), new RegExp(`vendor_id\\s*: ${vendor}`))
    assert.ok(read?.openError !== undefined || read?.createVm !== undefined)
  } finally {
    rmSync(dir, { recursive: true })
  }
})

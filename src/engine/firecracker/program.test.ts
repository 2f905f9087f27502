import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { readFirecracker } from './program.ts'

const dir = mkdtempSync(join(tmpdir(), 'fc-program-'))
after(() => rmSync(dir, { recursive: true }))

/** A static program for a machine of this number, with no more in it than these words. */
function program(machine: number, words: string): string {
  const header = Buffer.alloc(64)
  header.write('\x7fELF', 'latin1')
  header.set([2, 1], 4)
  header.writeUInt16LE(machine, 18)
  header.writeUInt16LE(56, 54)
  const path = join(dir, `${machine}-${words.length}`)
  writeFileSync(path, Buffer.concat([header, Buffer.from(words)]))
  return path
}

const words = 'Firecracker exiting\0--api-sock\0'

test('a binary is known by what it holds, and each has a place of its own in guests', async () => {
  const plain = await readFirecracker(program(62, words), 'x86_64')
  const nv2 = await readFirecracker(program(183, `${words}enable-nv2`), 'arm64')
  assert.match(plain.pathInGuest, /^\/run\/nestvm\/firecracker-[0-9a-f]{16}$/)
  assert.notEqual(plain.pathInGuest, nv2.pathInGuest)
  assert.deepEqual([plain.gives, nv2.gives], [[], ['arm64-hypervisor']])
})

test('what cannot run guests is refused with the reason', async () => {
  const refused = (path: string, message: RegExp) =>
    assert.rejects(readFirecracker(path, 'x86_64'), { code: 'BAD_FIRECRACKER', message })
  await refused(join(dir, 'none'), /ENOENT/)
  await refused(dir, /EISDIR/)
  await refused(program(62, 'something else'), /is not Firecracker/)
  await refused(program(183, words), /not for x86_64/)
  // This test's own program is dynamically linked.
  writeFileSync(join(dir, 'text'), 'api-sock Firecracker')
  await refused(join(dir, 'text'), /is not Firecracker/)
})

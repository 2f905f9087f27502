import assert from 'node:assert/strict'
import { test } from 'node:test'
import { characterDevice, cpio, directory, file, symlink } from './cpio.ts'

test('a file is a header of hexadecimal fields, its name and its content, each padded to 4 bytes', () => {
  const archive = cpio([file('init', 'hello', 0o755)]).toString('latin1')
  const fields = '00000001000081ed00000000000000000000000100000000000000050000000000000000000000000000000000000005'
  assert.ok(archive.startsWith(`070701${fields}00000000init\0\0hello\0\0\x00070701`), archive)
})

test('the archive ends with its trailer, padded to 4 bytes and no further', () => {
  const archive = cpio([])
  assert.equal(archive.length, 124)
  assert.equal(archive.toString('latin1', 110, 121), 'TRAILER!!!\0')
})

test('the order of the entries does not matter, and each comes after its directories', () => {
  const entries = [file('b/c/d', '1'), directory('b', 0o700), symlink('a', 'b/c/d'), characterDevice('b/null', 1, 3)]
  const archive = cpio(entries)
  assert.deepEqual(cpio(entries.toReversed()), archive)
  assert.deepEqual(
    read(archive).map(({ name, mode }) => `${mode.toString(8)} ${name}`),
    ['120777 a', '40700 b', '40755 b/c', '100644 b/c/d', '20600 b/null', '0 TRAILER!!!'],
  )
})

test('a device has its numbers, a link its target as content', () => {
  const [link, device] = read(cpio([symlink('link', 'target'), characterDevice('null', 1, 3)]))
  assert.equal(link?.content, 'target')
  assert.deepEqual(device?.device, [1, 3])
})

test('two entries of one name are refused', () => {
  assert.throws(() => cpio([file('a', ''), file('a', '')]), /twice/)
})

/** What the kernel reads out of it. */
function read(archive: Buffer) {
  const entries = []
  for (let at = 0; at < archive.length; ) {
    const field = (index: number) =>
      Number.parseInt(archive.toString('latin1', at + 6 + index * 8, at + 14 + index * 8), 16)
    assert.equal(archive.toString('latin1', at, at + 6), '070701')
    const nameEnd = at + 110 + field(11)
    const dataStart = Math.ceil(nameEnd / 4) * 4
    const name = archive.toString('latin1', at + 110, nameEnd - 1)
    const content = archive.toString('latin1', dataStart, dataStart + field(6))
    entries.push({ name, mode: field(1), content, device: [field(9), field(10)] })
    at = Math.ceil((dataStart + field(6)) / 4) * 4
  }
  return entries
}

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { readFile, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { LocalMachine } from '../../machine/local.ts'
import { run } from '../../machine/run.ts'
import { exampleLayer } from '../example-layer.ts'
import { readTar } from './reader.ts'

const dir = mkdtempSync(join(tmpdir(), 'tar-'))
after(() => rmSync(dir, { recursive: true }))

/** In chunks of a size that divides nothing. */
async function* chunked(data: Buffer, size = 333): AsyncGenerator<Buffer> {
  for (let at = 0; at < data.length; at += size) yield data.subarray(at, at + size)
}

async function entriesOf(data: Buffer) {
  const entries = []
  for await (const { data: content, ...entry } of readTar(chunked(data))) {
    const chunks: Buffer[] = []
    for await (const chunk of content()) chunks.push(chunk)
    entries.push({ ...entry, content: Buffer.concat(chunks) })
  }
  return entries
}

test('what is written is read again, byte by byte', async () => {
  const examples = [
    { path: 'a', data: 'hello', mode: 0o4755, uid: 3_000_000, gid: 70_000, mtime: -5 },
    { path: `${'long/'.repeat(60)}\xff\xfe`, data: 'x'.repeat(1000) },
    { path: 'link', type: 'symlink' as const, linkPath: `/${'t'.repeat(300)}` },
    { path: 'null', type: 'character' as const, device: { major: 1, minor: 3 } },
    { path: 'x', xattrs: new Map([['security.capability', Buffer.from([1, 0, 0, 2, 0xff, 0x0a, 0x3d, 0x80])]]) },
  ]
  const entries = await entriesOf(exampleLayer(examples))
  assert.equal(entries.length, examples.length)
  for (const [index, { data = '', ...example }] of examples.entries()) {
    const entry = entries[index]
    for (const [key, value] of Object.entries(example)) {
      assert.deepEqual(entry && Object.entries(entry).find(([name]) => name === key)?.[1], value, key)
    }
    assert.equal(entry?.content.toString(), data)
  }
})

for (const options of [
  ['--format=gnu', '-S'],
  ['--format=pax', '-S'],
  ['--format=pax', '-S', '--sparse-version=0.1'],
  ['--format=pax', '-S', '--sparse-version=0.0'],
  ['--format=ustar'],
  ['--format=v7'],
  ['--format=gnu'],
]) {
  test(`reads what GNU tar writes with ${options.join(' ')}`, async () => {
    const file = join(dir, 'file')
    await writeFile(file, 'begin')
    await truncate(file, 3 << 20)
    await writeFile(file, 'end', { flag: 'a' })
    await truncate(file, 4 << 20)
    const name = options.includes('--format=ustar') || options.includes('--format=v7') ? 'short' : 'n'.repeat(150)
    await writeFile(join(dir, name), 'after')
    const archive = join(dir, 'archive.tar')
    await run(new LocalMachine(), ['tar', ...options, '-C', dir, '-cf', archive, 'file', name])
    const [first, second] = await entriesOf(await readFile(archive))
    assert.equal(first?.path, 'file')
    assert.ok(first.content.equals(await readFile(file)))
    assert.equal(second?.path, name)
    assert.equal(second.content.toString(), 'after')
  })
}

test('what is no tar is refused', async () => {
  const good = exampleLayer([{ path: 'a', data: 'x'.repeat(2000) }])
  const broken = Buffer.from(good)
  broken.write('b', 0)
  const huge = Buffer.from(exampleLayer([{ path: 'a' }]))
  for (const data of [
    good.subarray(0, 1000),
    good.subarray(0, 100),
    broken,
    Buffer.from('x'.repeat(1024)),
    negative(huge),
  ]) {
    await assert.rejects(entriesOf(data), { code: 'IMAGE_BAD_LAYER' })
  }
  // An end without its zeros is common, and nothing is missing then.
  assert.equal((await entriesOf(good.subarray(0, 512 + 2048))).length, 1)
})

/** With the size -1, in base 256. */
function negative(tar: Buffer): Buffer {
  tar.fill(0xff, 124, 136)
  tar.fill(0x20, 148, 156)
  const sum = tar.subarray(0, 512).reduce((total, byte) => total + byte, 0)
  tar.write(`${sum.toString(8).padStart(6, '0')}\0`, 148, 'latin1')
  return tar
}

import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { test } from 'node:test'
import { gunzipSync } from 'node:zlib'
import { readTar } from '../image/tar/reader.ts'
import { archive } from './archive.ts'

test('an archive holds its files below one directory, with names of any length', async () => {
  const long = `L2-${'a'.repeat(120)}/nestvm/record.json`
  const files = new Map([
    ['summary.md', '# grüße\n'],
    [long, 'x'.repeat(512)],
    ['empty', ''],
  ])
  const seen: [string, string, number][] = []
  for await (const entry of readTar(Readable.from([gunzipSync(archive('report', files, new Date(5000)))]))) {
    const chunks: Buffer[] = []
    for await (const chunk of entry.data()) chunks.push(chunk)
    seen.push([entry.path, Buffer.concat(chunks).toString(), entry.mtime])
  }
  assert.deepEqual(
    seen,
    [...files].map(([path, text]) => [`report/${path}`, text, 5]),
  )
})

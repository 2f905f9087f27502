import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { checkVolume, parseVolume } from './request.ts'

test('a volume names a directory here and one there', () => {
  assert.deepEqual(parseVolume('/a:/b'), { dir: '/a', path: '/b', readOnly: false })
  assert.deepEqual(parseVolume('./a:/b/:ro'), { dir: join(process.cwd(), 'a'), path: '/b/', readOnly: true })
})

test('what is no volume is refused', () => {
  for (const text of ['', '/a', '/a:b', ':/b', '/a:/b:rx', '/a:/b:ro:ro', '/a:/']) {
    assert.throws(() => parseVolume(text), { code: 'BAD_VOLUME' }, text)
  }
})

test('only a directory that is there can be one', async () => {
  await checkVolume(parseVolume(`${import.meta.dirname}:/b`))
  await assert.rejects(checkVolume(parseVolume(`${import.meta.filename}:/b`)), { code: 'NO_SUCH_DIRECTORY' })
  await assert.rejects(checkVolume(parseVolume('/no/such:/b')), { code: 'NO_SUCH_DIRECTORY' })
})

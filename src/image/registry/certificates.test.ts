import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { certificateDirs, secureContextFor } from './certificates.ts'

const environment = { ...process.env }
let dir: string

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'certificates-'))
})
afterEach(() => {
  process.env = { ...environment }
  rmSync(dir, { recursive: true })
})

function write(path: string): void {
  mkdirSync(join(dir, path, '..'), { recursive: true })
  writeFileSync(join(dir, path), 'nonsense')
}

test("the user's directory comes before the system's, and podman's before docker's", () => {
  process.env.XDG_CONFIG_HOME = '/config'
  const expected = ['/config/containers/certs.d', '/etc/containers/certs.d', '/etc/docker/certs.d']
  assert.deepEqual(certificateDirs(), expected)
})

test('the first directory that a registry has counts; half a pair is refused by name', async () => {
  const dirs = ['user', 'system'].map((name) => join(dir, name))
  write('system/a.example:5000/client.cert')
  const wrong = (path: string) => ({ code: 'BAD_CERTIFICATE', details: { path: join(dir, path) } })
  await assert.rejects(secureContextFor('a.example:5000', dirs), wrong('system/a.example:5000/client.cert'))
  write('user/a.example:5000/own.key')
  await assert.rejects(secureContextFor('a.example:5000', dirs), wrong('user/a.example:5000/own.key'))
  assert.ok(await secureContextFor('a.example', dirs))
})

test('what is no certificate is refused', async () => {
  write('a.example/client.cert')
  write('a.example/client.key')
  await assert.rejects(secureContextFor('a.example', [dir]), { code: 'BAD_CERTIFICATE', message: /a\.example/ })
})

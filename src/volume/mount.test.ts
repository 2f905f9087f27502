import assert from 'node:assert/strict'
import { test } from 'node:test'
import { mountScript } from './mount.ts'

test('a volume is mounted where it was asked for, whatever the path', () => {
  const script = mountScript([{ address: '10.0.0.4', port: 2049, name: 'v0', path: "/it's here", readOnly: true }])
  assert.match(script, /addr=10\.0\.0\.4,.*port=2049,.*,ro 10\.0\.0\.4:\/v0 '/)
  assert.match(script, /mkdir -p '\/it'\\''s here' &&/)
})

test('volumes are read far ahead, once all are mounted', () => {
  const mount = { address: '10.0.0.4', port: 2049, name: 'v0', path: '/a', readOnly: false }
  const lines = mountScript([mount, { ...mount, name: 'v1', path: '/b' }]).split('\n')
  assert.match(lines.at(-1) ?? '', /read_ahead_kb/)
  assert.equal(lines.filter((line) => line.includes('read_ahead_kb')).length, 1)
})

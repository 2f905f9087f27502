import assert from 'node:assert/strict'
import { test } from 'node:test'
import { afterDashes, collectEnv, parseCount, parseDuration, parseMemory, withOptionalValues } from './values.ts'

const invalid = { code: 'commander.invalidArgument' }

test('memory is in MiB unless a unit says otherwise', () => {
  const sizes = {
    512: 512,
    '512M': 512,
    '512MiB': 512,
    '2G': 2048,
    '2g': 2048,
    '1.5GB': 1536,
    '1T': 1 << 20,
    '1024k': 1,
  }
  for (const [text, mib] of Object.entries(sizes)) assert.equal(parseMemory(text), mib, text)
  for (const text of ['', '0', '-1', 'M', '1X', '1 2', '1e3', 'NaN', ' '])
    assert.throws(() => parseMemory(text), invalid, text)
})

test('a duration is in seconds unless a unit says otherwise', () => {
  const durations = { 30: 30_000, '1.5s': 1500, '5m': 300_000, '2h': 7_200_000, '20ms': 20 }
  for (const [text, ms] of Object.entries(durations)) assert.equal(parseDuration(text), ms, text)
  for (const text of ['', '0', '-1', '5d', 's', '1 s', 'Infinity'])
    assert.throws(() => parseDuration(text), invalid, text)
})

test('a count is a whole number from 1 on', () => {
  assert.equal(parseCount('3'), 3)
  for (const text of ['', '0', '-1', '1.5', 'x', 'Infinity']) assert.throws(() => parseCount(text), invalid, text)
})

test('variables add up; a value may hold anything, and a bare name takes the value from here', () => {
  process.env.NESTVM_TEST_VALUE = 'here'
  const words = ['A=1', 'B=x=y z', 'C=', 'NESTVM_TEST_VALUE', 'A=2']
  const env = words.reduce((before, word) => collectEnv(word, before), {})
  delete process.env.NESTVM_TEST_VALUE
  assert.deepEqual(env, { A: '2', B: 'x=y z', C: '', NESTVM_TEST_VALUE: 'here' })
  for (const text of ['', '=x']) assert.throws(() => collectEnv(text, {}), invalid)
})

test('a bare name that has no value here leaves the variable unset', () => {
  assert.deepEqual(collectEnv('NESTVM_TEST_UNSET', { A: '1' }), { A: '1' })
  assert.deepEqual(collectEnv('NESTVM_TEST_UNSET', { NESTVM_TEST_UNSET: 'earlier' }), {})
})

test('the command is what follows the first --', () => {
  assert.deepEqual(afterDashes(['node', 'nestvm', 'run', '--', 'sh', '-c', 'x', '--', 'y']), [
    'sh',
    '-c',
    'x',
    '--',
    'y',
  ])
  assert.deepEqual(afterDashes(['node', 'nestvm', 'run', '--']), [])
  assert.equal(afterDashes(['node', 'nestvm', 'run']), undefined)
})

test('an option that may do without a value takes none from the next word', () => {
  const words = ['run', '--migratable', 'alpine', '--migratable=EPYC', '--', 'x', '--migratable']
  assert.deepEqual(withOptionalValues(words), ['run', '--migratable=', ...words.slice(2)])
  assert.deepEqual(withOptionalValues(['run', '--migratable']), ['run', '--migratable='])
})

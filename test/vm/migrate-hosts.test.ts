import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { generateKeyPair } from '../../src/machine/keys.ts'
import { freePort } from '../image/programs.ts'
import { count, paths, work } from './moves.ts'
import { enginesOf, Home } from './nestvm.ts'
import { SshServer, trust } from './ssh-server.ts'

// The other host is this one, with a user's directories of its own.
const home = new Home()
const there = new SshServer(join(home.dir, 'there'), generateKeyPair('me'))
const share = join(home.dir, 'share')

before(async () => {
  await there.listen()
  trust(there, home)
  mkdirSync(share)
})
after(async () => {
  await there.close()
  await home[Symbol.asyncDispose]()
})

/** How many engines this host has, and of how many the other one has files. */
const engines = () => [
  enginesOf(join(home.dir, 'state')).length,
  readdirSync(join(there.dir, 'state/nestvm/engines')).length,
]
const linesOf = (path: string) => readFileSync(path, 'utf8').trim().split('\n').map(Number)

test('L1 goes to another host and back with L2 and L3 live in it, their port and their volume', async () => {
  const port = await freePort()
  await home.ok('run', '-d', '--depth', '3', '--name', 'a', '-p', `127.0.0.1:${port}:80`, '-v', `${share}:/share`)
  const script = `${work}
echo page > /tmp/page; httpd -p 80 -h /tmp
(exec 4<> /tmp/never; i=0; while :; do i=$((i + 1)); echo $i >> /share/lines; read -t 0.5 x <&4; done) > /dev/null 2>&1 < /dev/null &`
  await home.ok('exec', 'a/l2/l3', '--', 'sh', '-c', script)
  let counted = await count(home, 'a/l2/l3')
  for (const [to, found] of [
    [there.url, [0, 1]],
    ['host', [1, 0]],
  ] as const) {
    const shared = linesOf(join(share, 'lines')).length
    const moved = await home.json<{ machine: string; downtimeMs: number; portsTaken: string[] }>(
      'migrate',
      'a',
      '--to',
      to,
    )

    assert.deepEqual([moved.machine, moved.portsTaken], ['a', []])
    assert.deepEqual(engines(), found)
    assert.deepEqual(await paths(home), ['a', 'a/l2', 'a/l2/l3'])
    const now = await count(home, 'a/l2/l3')
    assert.ok(now > counted)
    counted = now
    const answer = await fetch(`http://127.0.0.1:${port}/page`, { signal: AbortSignal.timeout(60_000) })
    assert.equal(await answer.text(), 'page\n')
    await home.ok('exec', 'a/l2/l3', '--', 'sync')
    const lines = linesOf(join(share, 'lines'))
    assert.deepEqual(
      lines,
      lines.map((_, index) => index + 1),
    )
    assert.ok(lines.length > shared)
  }
  assert.deepEqual(enginesOf(there.dir), [])
  await home.ok('stop', 'a')
  assert.deepEqual(await home.traces(), [])
})

test('a nested guest goes by itself to a hypervisor on another host and back, with its port and its volume', async () => {
  const port = await freePort()
  await home.ok('run', '-d', '--nested', '--memory', '1G', '--name', 'here')
  await home.ok('run', '-d', '--nested', '--memory', '1G', '--name', 'there', '--on', there.url)
  const services = ['-p', `127.0.0.1:${port}:80`, '-v', `${share}:/share`]
  await home.ok('run', '-d', '--on', 'here', '--name', 'x', '--memory', '256M', ...services)
  const page = 'echo page > /tmp/page; httpd -p 80 -h /tmp'
  await home.ok('exec', 'here/x', '--', 'sh', '-c', `${work}\n${page}; echo before > /share/said`)
  let counted = await count(home, 'here/x')
  for (const [from, to] of [
    ['here', 'there'],
    ['there', 'here'],
  ] as const) {
    await home.ok('migrate', `${from}/x`, '--to', to)
    assert.deepEqual(await paths(home), ['here', 'there', `${to}/x`].sort())
    const now = await count(home, `${to}/x`)
    assert.ok(now > counted)
    counted = now
    const answer = await fetch(`http://127.0.0.1:${port}/page`, { signal: AbortSignal.timeout(60_000) })
    assert.equal(await answer.text(), 'page\n')
    await home.ok('exec', `${to}/x`, '--', 'sh', '-c', `cat /share/said; echo at ${to} > /share/said; sync`)
    assert.equal(readFileSync(join(share, 'said'), 'utf8'), `at ${to}\n`)
  }
  await Promise.all(['here', 'there'].map((name) => home.ok('stop', name)))
  assert.deepEqual(enginesOf(there.dir), [])
  assert.deepEqual(await home.traces(), [])
})

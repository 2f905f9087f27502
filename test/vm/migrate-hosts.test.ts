import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { generateKeyPair } from '../../src/machine/keys.ts'
import { freePort } from '../image/programs.ts'
import { enginesOf, Home } from './nestvm.ts'
import { SshServer, trust } from './ssh-server.ts'

// The other host is this one, with a user's directories of its own.
const home = new Home()
const there = new SshServer(join(home.dir, 'there'), generateKeyPair('me'))

before(async () => {
  await there.listen()
  trust(there, home)
})
after(async () => {
  await there.close()
  await home[Symbol.asyncDispose]()
})

const work = `head -c 1000000 /dev/urandom > /tmp/file; md5sum < /tmp/file > /tmp/sum
(i=0; while :; do i=$((i + 1)); echo $i > /tmp/next; mv /tmp/next /tmp/count; echo $i >> /tmp/lines; usleep 50000; done) > /dev/null 2>&1 < /dev/null &
while :; do nc -l -p 7000 -e cat; done > /dev/null 2>&1 < /dev/null &`
const look = `md5sum < /tmp/file | cmp - /tmp/sum || exit 1
awk '$1 != NR { exit 1 }' /tmp/lines || exit 1
cat /tmp/count; sleep 1; cat /tmp/count`
async function count(path: string): Promise<number> {
  const [first = 0, later = 0] = (await home.ok('exec', path, '--', 'sh', '-c', look)).split('\n').map(Number)
  assert.ok(later > first, `the counter of ${path} stands at ${first}`)
  return later
}

const engines = () => [enginesOf(join(home.dir, 'state')).length, enginesOf(there.dir).length]

test('L1 goes to another host and back with L2 and L3 live in it', async () => {
  const port = await freePort()
  await home.ok('run', '-d', '--depth', process.env.DEPTH ?? '2', '--name', 'a', '-p', `127.0.0.1:${port}:7000`)
  const inner = process.env.DEPTH === '3' ? 'a/l2/l3' : 'a/l2'
  await home.ok('exec', inner, '--', 'sh', '-c', work)
  let counted = await count(inner)
  console.error(engines(), counted, new Date())
  for (const to of [there.url, 'host'].slice(0, Number(process.env.TURNS ?? 2))) {
    console.error(await home.run(['migrate', 'a', '--to', to, '--json']), new Date())
    console.error(engines())
    const now = await count(inner)
    console.error(now, readdirSync(`${there.dir}/state/nestvm/engines`), new Date())
    assert.ok(now > counted)
    counted = now
  }
  await home.ok('rm', '-f', 'a')
  console.error(await home.traces())
})

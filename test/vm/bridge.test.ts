// In network namespaces of its own: one is the host, the other what lies beyond it.
import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { after, before, test } from 'node:test'
import { Home, said } from './nestvm.ts'

const root = process.getuid?.() === 0
const [here, beyond] = [`nvt-here-${process.pid}`, `nvt-beyond-${process.pid}`]
const ip = (...args: string[]) => execFileSync('ip', args, { encoding: 'utf8' })
const home = new Home()
let server: ChildProcess

before(async () => {
  if (!root) return
  // There is nothing to download from in there.
  await home.ok('setup')
  for (const name of [here, beyond]) ip('netns', 'add', name)
  ip('link', 'add', 'up0', 'netns', here, 'type', 'veth', 'peer', 'name', 'down0', 'netns', beyond)
  ip('-n', here, 'addr', 'add', '192.0.2.129/30', 'dev', 'up0')
  ip('-n', beyond, 'addr', 'add', '192.0.2.130/30', 'dev', 'down0')
  for (const [name, device] of [
    [here, 'up0'],
    [beyond, 'down0'],
    [here, 'lo'],
    [beyond, 'lo'],
  ] as const) {
    ip('-n', name, 'link', 'set', device, 'up')
  }
  ip('-n', here, 'route', 'add', 'default', 'via', '192.0.2.130')
  home.within = ['ip', 'netns', 'exec', here]
  const script = `require('http').createServer((q, a) => a.end('seen as ' + q.socket.remoteAddress + '\\n'))
    .listen(8080, '192.0.2.130', () => console.log('listens'))`
  server = spawn('ip', ['netns', 'exec', beyond, process.execPath, '-e', script])
  await said(server, 'listens')
})
after(async () => {
  await home[Symbol.asyncDispose]()
  if (!root) return
  server.kill('SIGKILL')
  for (const name of [here, beyond]) ip('netns', 'del', name)
})

test('a bridged guest, and one in it, go out by the host; all that was changed is undone', async (t) => {
  if (!root) return t.skip('a bridge takes root')
  const get = 'wget -q -T 20 -O - http://192.0.2.130:8080/'
  const { stdout, stderr, status } = await home.run([
    'run',
    '--depth',
    '2',
    '--network',
    'bridged',
    '--',
    'sh',
    '-c',
    get,
  ])
  assert.equal(stdout, 'seen as 192.0.2.129\n', stderr)
  assert.equal(status, 0)
  for (const said of [/added the bridge nestvm0/, /added the nft table/]) assert.match(stderr, said)
  assert.deepEqual(ip('-n', here, '-o', 'link').match(/nestvm0|: n[0-9a-f]{10}/g), null)
  assert.deepEqual(await home.traces(), [])
})

test('two guests on the bridge reach each other, and it goes with the last one, also after kill -9', async (t) => {
  if (!root) return t.skip('a bridge takes root')
  await home.ok('run', '-d', '--name', 'a', '--network', 'bridged', '--', 'httpd', '-f', '-p', '80', '-h', '/etc')
  const find = "ifconfig eth1 | sed -n 's/.*inet addr:\\([0-9.]*\\).*/\\1/p'"
  const address = (await home.ok('exec', 'a', '--', 'sh', '-c', find)).trim()
  assert.match(address, /^198\.19\.0\./)
  const get = `wget -q -T 20 -O - http://${address}/hostname`
  assert.equal(await home.ok('run', '--network', 'bridged', '--', 'sh', '-c', get), 'a\n')
  assert.match(ip('-n', here, '-o', 'link'), /nestvm0/)
  const child = home.start('run', '--network', 'bridged', '--', 'sh', '-c', 'echo ready; sleep 1000')
  await said(child, 'ready')
  child.kill('SIGKILL')
  await home.ok('rm', '-f', 'a')
  await home.ok('ls')
  assert.deepEqual(ip('-n', here, '-o', 'link').match(/nestvm0|: n[0-9a-f]{10}/g), null)
})

import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { generateKeyPair } from '../../src/machine/keys.ts'
import { buildImage, writeLayout } from '../image/images.ts'
import { freePort, getPrograms } from '../image/programs.ts'
import { enginesOf, finished, Home, said } from './nestvm.ts'
import { know, SshServer, trust } from './ssh-server.ts'

// The other host is this one, with a user's directories of its own.
const home = new Home()
home.ownImages()
const there = new SshServer(join(home.dir, 'there'), generateKeyPair('me'))
let files: ReturnType<typeof trust>

before(async () => {
  await there.listen()
  files = trust(there, home)
})
after(async () => {
  await there.close()
  await home[Symbol.asyncDispose]()
})

/** What is left of engines on the other host. */
const leftThere = () => readdirSync(join(there.dir, 'state/nestvm/engines'))

async function refusal(...args: string[]): Promise<{ code: string; message: string; hint: string }> {
  const { status, stdout } = await home.run(args)
  assert.equal(status, 125, stdout)
  return JSON.parse(stdout).error
}

test('a host whose key is unknown or another one, or that knows no key of ours, is refused', async () => {
  const run = () => refusal('run', '--json', '--on', there.url, '--', 'true')
  writeFileSync(files.known, '')
  const unknown = await run()
  assert.equal(unknown.code, 'HOST_KEY_UNKNOWN')
  assert.match(unknown.hint, new RegExp(`ssh -p ${there.port} \\S+@127.0.0.1 true`))
  know(there, files.known, generateKeyPair('another'))
  assert.equal((await run()).code, 'HOST_KEY_CHANGED')
  know(there, files.known)
  writeFileSync(files.identity, generateKeyPair('another').openssh)
  assert.equal((await run()).code, 'LOGIN_FAILED')
  writeFileSync(files.identity, there.login.openssh)
  assert.ok(!existsSync(join(there.dir, 'data/nestvm')))
})

test('a run on another host copies the bundle there once, and leaves nothing else', async () => {
  const first = await home.run(['run', '--on', there.url, '--', 'sh', '-c', 'cat /etc/hostname; exit 7'])
  assert.equal(first.status, 7, first.stderr)
  assert.match(first.stdout, /^vm-/)
  assert.match(first.stderr, /copying tools-/)
  const bundle = readdirSync(join(there.dir, 'data/nestvm/bundle'), { encoding: 'utf8' })
  assert.deepEqual(bundle.map((name) => name.split('-')[0]).sort(), ['guest', 'tools'])
  const second = await home.run(['run', '--on', there.url, '--', 'true'])
  assert.deepEqual([second.status, second.stderr], [0, ''])
  assert.deepEqual(leftThere(), [])
  assert.deepEqual(await home.traces(), [])
})

test('doctor looks at another host as it does at this one', async () => {
  const look = async (...args: string[]) => {
    const { status, stdout } = await home.run(['doctor', '--json', ...args])
    const { because, machines } = JSON.parse(stdout)
    return { status, because, code: machines[0].kvm.code, machine: machines[0].machine }
  }
  const { machine, ...found } = await look('--on', there.url)
  assert.equal(machine, there.url)
  assert.deepEqual({ ...found, machine: 'host' }, await look())
})

test('a machine on another host is used, seen and ended as any other', async () => {
  assert.equal(await home.ok('run', '-d', '--nested', '--on', there.url, '--name', 'far'), 'far\n')
  assert.equal(await home.ok('exec', 'far', '--', 'hostname'), 'far\n')
  assert.equal(await home.ok('run', '--on', 'far', '--', 'sh', '-c', 'echo in'), 'in\n')
  const [listed] = await home.json<{ machine: string; phase: string; host: string }[]>('ls')
  assert.deepEqual([listed?.machine, listed?.phase, listed?.host], ['far', 'running', there.url])
  writeFileSync(join(home.dir, 'file'), 'carried\n')
  await home.ok('cp', join(home.dir, 'file'), 'far:/root/')
  assert.equal(await home.ok('exec', 'far', '--', 'cat', '/root/file'), 'carried\n')
  assert.match(await home.ok('logs', '--of', 'kernel', 'far'), /nestvm: up/)
  const { levels } = await home.json<{ levels: { seen: { kernel: string } }[] }>('inspect', 'far')
  assert.match(levels[0]?.seen.kernel ?? '', /^\d+\.\d+/)
  await home.ok('stop', 'far')
  assert.deepEqual([leftThere(), await home.traces()], [[], []])
})

test('a container there has its image, volumes of this host, and ports of that one', async () => {
  const { busybox } = await getPrograms()
  const links = ['sh', 'cat', 'echo', 'httpd'].map((name) => {
    return { path: `bin/${name}`, type: 'symlink' as const, linkPath: 'busybox' }
  })
  const files = [{ path: 'bin/busybox', data: readFileSync(busybox), mode: 0o755 }, ...links]
  await writeLayout(join(home.dir, 'image'), { web: buildImage([files], { config: { Env: ['PATH=/bin'] } }) })
  const image = `oci:${join(home.dir, 'image')}:web`
  const site = join(home.dir, 'site')
  mkdirSync(site)
  writeFileSync(join(site, 'page'), 'served from here\n')
  const port = await freePort()
  const flags = ['--on', there.url, '--name', 'web', '-p', `${port}:80`, '-v', `${site}:/site`]
  const server = ['httpd', '-f', '-h', '/site']
  assert.equal(await home.ok('run', '-d', '--depth', '2', ...flags, image, '--', ...server), 'web/l2\n')
  const page = async (): Promise<string> => {
    // A connection that comes before the server listens is reset.
    const answer = await fetch(`http://127.0.0.1:${port}/page`, { signal: AbortSignal.timeout(60_000) }).catch(() => {})
    return answer ? answer.text() : sleep(200).then(page)
  }
  assert.equal(await page(), 'served from here\n')
  await home.ok('exec', 'web/l2', '--', 'sh', '-c', 'echo written there > /site/back')
  assert.equal(readFileSync(join(site, 'back'), 'utf8'), 'written there\n')

  there.breakConnections()
  writeFileSync(join(site, 'page'), 'again\n')
  assert.equal(await page(), 'again\n')

  const taken = await home.run(['run', '--json', '--on', there.url, '-p', `${port}:80`, '--', 'true'])
  assert.equal(JSON.parse(taken.stdout).error.code, 'PORT_TAKEN')
  const second = await home.run(['run', '--on', 'web', '--memory', '256M', image, '--', 'echo', 'attached'])
  assert.deepEqual(second, { status: 0, stdout: 'attached\n', stderr: '' })
  assert.equal(readdirSync(join(there.dir, 'data/nestvm/images/contents')).length, 1)
  await home.ok('stop', 'web')
  assert.deepEqual([leftThere(), await home.traces()], [[], []])
})

test('a detached command leaves its output and exit status there', async () => {
  await home.ok('run', '-d', '--on', there.url, '--name', 'job', '--', 'sh', '-c', 'echo said; exit 5')
  type Listed = { phase: string; exitStatus?: number }[]
  const job = async () => (await home.json<Listed>('ls', '--all'))[0]
  while ((await job())?.phase === 'running') await sleep(200)
  assert.deepEqual([(await job())?.phase, (await job())?.exitStatus], ['exited', 5])
  assert.equal(await home.ok('logs', 'job'), 'said\n')
  await home.ok('rm', 'job')
  assert.deepEqual([leftThere(), await home.traces()], [[], []])
})

test('after kill -9 of nestvm its engine there ends by itself, and the next look cleans up', async () => {
  const child = home.start('run', '--on', there.url, '--', 'sh', '-c', 'echo ready; sleep 1000')
  await said(child, 'ready')
  child.kill('SIGKILL')
  await finished(child)
  while (enginesOf(there.dir).length > 0) await sleep(50)
  assert.equal(await home.ok('ls', '--all'), '')
  assert.deepEqual([leftThere(), await home.traces()], [[], []])
})

test('a killed engine there ends the run with the reason', async () => {
  const child = home.start('run', '--on', there.url, '--', 'sh', '-c', 'echo ready; sleep 1000')
  const result = finished(child)
  await said(child, 'ready')
  for (const pid of enginesOf(there.dir)) process.kill(pid, 'SIGKILL')
  const { status, stderr } = await result
  assert.equal(status, 125)
  assert.match(stderr, /engine ended while it ran \(SIGKILL\)/)
  assert.deepEqual([leftThere(), await home.traces()], [[], []])
})

test('when the host is out of reach, commands say so, and rm --force removes what is known here', async () => {
  await home.ok('run', '-d', '--on', there.url, '--name', 'lost')
  await there.close()
  const [listed] = await home.json<{ phase: string }[]>('ls')
  assert.equal(listed?.phase, 'unreachable')
  assert.equal((await refusal('exec', '--json', 'lost', '--', 'true')).code, 'CONNECT_FAILED')
  assert.equal((await home.run(['rm', 'lost'])).status, 125)
  const { status, stderr } = await home.run(['rm', '-f', 'lost'])
  assert.equal(status, 0)
  assert.match(stderr, /may still run/)
  assert.equal(await home.ok('ls', '--all'), '')
})

// Containers from a registry on this host: at level 1 all that a container is, deeper what changes there.
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import { networkInterfaces, tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { buildImage } from '../image/images.ts'
import { getPrograms } from '../image/programs.ts'
import { type Registry, startRegistry } from '../image/registry.ts'
import { finished, Home, said, serversOf } from './nestvm.ts'

const home = new Home()
home.ownImages()
const dir = mkdtempSync(join(tmpdir(), 'nvt-'))
let registry: Registry
let image: string

before(async () => {
  const programs = await getPrograms()
  registry = await startRegistry(programs, join(dir, 'registry'))
  const applets = [
    'sh',
    'ls',
    'cat',
    'echo',
    'id',
    'env',
    'pwd',
    'sleep',
    'kill',
    'stty',
    'httpd',
    'wget',
    'hostname',
    'df',
  ]
  const files = [
    { path: 'bin/busybox', data: readFileSync(programs.busybox), mode: 0o755 },
    ...applets.map((name) => ({ path: `bin/${name}`, type: 'symlink' as const, linkPath: 'busybox' })),
    ...['proc', 'sys', 'dev', 'root', 'srv', 'data', 'home/alice'].map((path) => ({
      path,
      type: 'directory' as const,
    })),
    { path: 'tmp', type: 'directory' as const, mode: 0o1777 },
    { path: 'logs', type: 'symlink' as const, linkPath: '/data' },
    { path: 'etc/passwd', data: 'root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n' },
    { path: 'etc/group', data: 'root:x:0:\nalice:x:1000:\nwheel:x:10:alice\n' },
    { path: 'etc/hello', data: 'hello from the image\n' },
    { path: 'etc/gone', data: '' },
  ]
  const config = {
    ...{
      Env: ['PATH=/bin', 'A=image', 'B=image'],
      Entrypoint: ['sh', '-c', 'exec "$@"', 'entry'],
      Cmd: ['cat', '/etc/hello'],
    },
    ...{ WorkingDir: '/srv', StopSignal: 'SIGUSR1' },
    Healthcheck: { Test: ['CMD-SHELL', 'cat /etc/hello'], Interval: 1e9 },
  }
  await registry.push('test/image', 'latest', buildImage([files, [{ path: 'etc/.wh.gone', data: '' }]], { config }))
  image = `${registry.host}/test/image`
})
after(async () => {
  await home[Symbol.asyncDispose]()
  await registry?.[Symbol.asyncDispose]()
  rmSync(dir, { recursive: true })
})

test('an image runs its own command, or another with its entrypoint, environment and directory', async () => {
  assert.equal(await home.ok('run', image), 'hello from the image\n')
  const script = 'echo $A $B $HOME $(hostname); pwd; id; ls /etc/gone 2>&1 || exit 7'
  const { status, stdout } = await home.run([
    'run',
    '--name',
    'c',
    '-e',
    'B=flag',
    '-u',
    'alice',
    image,
    '--',
    'sh',
    '-c',
    script,
  ])
  assert.equal(
    stdout,
    'image flag /home/alice c\n/srv\nuid=1000(alice) gid=1000(alice) groups=10(wheel)\nls: /etc/gone: No such file or directory\n',
  )
  assert.equal(status, 7)
})

test('standard input, a terminal, and what cannot be run', async () => {
  const { stdout } = await home.run(['run', '-i', image, '--', 'cat'], { input: 'through\n' })
  assert.equal(stdout, 'through\n')
  const unknown = await home.run(['run', '--json', '-u', 'bob', image])
  assert.equal(JSON.parse(unknown.stdout).error.code, 'NO_SUCH_USER')
})

test('exec enters the container, exec --vm the guest; both with their own users and exit statuses', async () => {
  await home.ok('run', '-d', '--name', 'box', image, '--', 'sh', '-c', 'echo started; while :; do sleep 0.2; done')
  assert.equal(await home.ok('exec', 'box', '--', 'sh', '-c', 'echo $A; cat /proc/1/comm; pwd'), 'image\nsh\n/srv\n')
  assert.match(await home.ok('exec', '-u', '5:6', 'box', '--', 'id'), /^uid=5 gid=6/)
  assert.match(await home.ok('exec', '--vm', 'box', '--', 'cat', '/etc/os-release'), /nestvm guest/)
  assert.match(await home.ok('exec', '-t', 'box', '--', 'stty', 'size'), /^24 80\r?\n$/)
  for (const [command, status] of [
    ['exit 5', 5],
    ['exit 1', 1],
  ] as const) {
    assert.equal((await home.run(['exec', 'box', '--', 'sh', '-c', command])).status, status)
  }
  assert.equal((await home.run(['exec', 'box', '--', 'nothing'])).status, 127)
  assert.equal((await home.run(['exec', 'box', '--', '/etc/hello'])).status, 126)
  const { status } = await home.run(['exec', 'box', '--', 'sh', '-c', 'echo x > /proc/sys/kernel/hostname'])
  assert.notEqual(status, 0)
})

test('ls shows the image and its health; cp follows links as the container does', async () => {
  const box = async () => (await home.json<{ image: string; health: string }[]>('ls')).at(0)
  for (let tries = 0; tries < 100 && (await box())?.health !== 'healthy'; tries++) await sleep(200)
  assert.deepEqual([(await box())?.image, (await box())?.health], [`${image}:latest`, 'healthy'])
  writeFileSync(join(dir, 'file'), 'copied\n')
  await home.ok('cp', join(dir, 'file'), 'box:/logs/file')
  assert.equal(await home.ok('exec', 'box', '--', 'cat', '/data/file'), 'copied\n')
  await home.ok('cp', 'box:/logs/file', join(dir, 'back'))
  assert.equal(readFileSync(join(dir, 'back'), 'utf8'), 'copied\n')
})

test("stop sends the image's stop signal, and what the container says then is logged", async () => {
  await home.ok('rm', '-f', 'box')
  const script = 'trap "echo stopping; exit 3" USR1; echo ready; while :; do sleep 0.1; done'
  await home.ok('run', '-d', '--name', 'box', image, '--', 'sh', '-c', script)
  const logs = home.start('logs', '-f', 'box')
  const result = finished(logs)
  await said(logs, 'ready')
  await home.ok('stop', 'box')
  assert.match((await result).stdout, /stopping/)
  assert.deepEqual(await home.traces(), [])
})

test('a container is confined unless it is privileged; --nested gives it KVM; --disk keeps what it writes', async () => {
  const kvm = 'ls /dev/kvm /dev/net/tun && (exec 3<> /dev/kvm) && echo opened; df / | cat'
  const nested = await home.ok('run', '--nested', '--disk', '300M', image, '--', 'sh', '-c', kvm)
  assert.match(nested, /^\/dev\/kvm\n\/dev\/net\/tun\nopened\n/)
  const [, kib] = /overlay +(\d+)/.exec(nested) ?? []
  assert.ok(Number(kib) > 200_000 && Number(kib) < 307_200, nested)
  const privileged = 'echo renamed > /proc/sys/kernel/hostname && hostname; ls /dev/kmsg'
  assert.equal(await home.ok('run', '--privileged', image, '--', 'sh', '-c', privileged), 'renamed\n/dev/kmsg\n')
  assert.equal((await home.run(['run', image, '--', 'ls', '/dev/kvm'])).status, 1)
})

/** A server on all addresses, or on one. */
async function serve(address: string): Promise<{ server: Server; port: number }> {
  const server = createServer((_, response) => response.end('from the host\n')).listen(0, address)
  await new Promise((resolve) => server.once('listening', resolve))
  const at = server.address()
  return { server, port: typeof at === 'object' && at ? at.port : 0 }
}

test("guests reach what the host reaches, but not the host's loopback; with --network none nothing", async () => {
  const [own] = Object.values(networkInterfaces()).flatMap((list) =>
    (list ?? []).filter(({ family, internal }) => family === 'IPv4' && !internal),
  )
  assert.ok(own, 'this host has no address besides its loopback')
  const open = await serve(own.address)
  const hidden = await serve('127.0.0.1')
  try {
    const get = (address: string, port: number) => `wget -q -T 10 -O - http://${address}:${port}/ 2>&1`
    const hiding = ['127.0.0.1', '198.18.0.1', '198.18.0.2', '198.18.0.53', '10.0.0.1', '10.0.0.2']
    const tries = hiding.map((address) => get(address, hidden.port)).join('; ')
    const out = await home.ok(
      'run',
      '--depth',
      '2',
      image,
      '--',
      'sh',
      '-c',
      `${get(own.address, open.port)}; ${tries}; true`,
    )
    assert.equal(out.split('from the host').length, 2, out)
    const closed = await home.run(['run', '--network', 'none', image, '--', 'sh', '-c', get(own.address, open.port)])
    assert.match(closed.stdout, /unreachable/)
  } finally {
    open.server.close()
    hidden.server.close()
  }
})

test('an image goes into a hypervisor that runs already, and its port comes out; a taken port is refused', async () => {
  const { server, port: taken } = await serve('127.0.0.1')
  await home.ok('run', '-d', '--nested', '--name', 'hv')
  const refused = await home.run(['run', '--json', '--on', 'hv', '-p', `${taken}:80`, image])
  assert.equal(JSON.parse(refused.stdout).error.code, 'PORT_TAKEN')
  server.close()
  await home.ok(
    'run',
    '-d',
    '--on',
    'hv',
    '--name',
    'web',
    '-p',
    `${taken}:80`,
    image,
    '--',
    'httpd',
    '-f',
    '-p',
    '80',
    '-h',
    '/etc',
  )
  assert.equal(await fetchText(`http://127.0.0.1:${taken}/hello`), 'hello from the image\n')
  await home.ok('rm', '-f', 'hv/web')
  await assert.rejects(fetch(`http://127.0.0.1:${taken}/hello`))
  await home.ok('rm', '-f', 'hv')
})

test('three levels deep a web server serves a directory of the host on a port of the host', async () => {
  const site = join(dir, 'site')
  mkdirSync(site)
  writeFileSync(join(site, 'page'), 'from a directory of the host\n')
  const { server, port } = await serve('127.0.0.1')
  server.close()
  const web = ['run', '-d', '--depth', '3', '--name', 'deep', '-p', `${port}:80`, '-v', `${site}:/data`]
  await home.ok(...web, image, '--', 'httpd', '-f', '-p', '80', '-h', '/data')
  assert.equal(await fetchText(`http://127.0.0.1:${port}/page`), 'from a directory of the host\n')
  // Changes go both ways, within a second.
  writeFileSync(join(site, 'page'), 'changed here\n')
  await sleep(1100)
  assert.equal(await fetchText(`http://127.0.0.1:${port}/page`), 'changed here\n')
  await home.ok('exec', 'deep/l2/l3', '--', 'sh', '-c', 'echo changed there > /data/page')
  assert.equal(readFileSync(join(site, 'page'), 'utf8'), 'changed there\n')
  assert.equal(serversOf(home.dir).length, 2)
  await home.ok('rm', '-f', 'deep')
  assert.deepEqual(await home.traces(), [])
})

test('a volume is read-only where it is to be, by the server, and only a directory that is there', async () => {
  const seen = 'cat /ro/page; echo x > /ro/page; echo $?; echo x > /ro/new; echo $?'
  const out = await home.run(['run', '-v', `${join(dir, 'site')}:/ro:ro`, image, '--', 'sh', '-c', seen])
  assert.equal(out.stdout, 'changed there\n1\n1\n')
  const gone = await home.run(['run', '--json', '-v', '/no/such/directory:/a', image])
  assert.equal(JSON.parse(gone.stdout).error.code, 'NO_SUCH_DIRECTORY')
})

/** A detached container's server needs a moment. */
async function fetchText(url: string): Promise<string> {
  for (let tries = 0; ; tries++) {
    try {
      return await (await fetch(url)).text()
    } catch (error) {
      if (tries > 200) throw error
      await sleep(200)
    }
  }
}

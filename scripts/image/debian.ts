import { readdir, readFile, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import { appletNames } from '../../src/bundle/guest/base.ts'
import { PackageSources } from '../../src/bundle/packages.ts'
import { hostArch } from '../../src/host/arch.ts'
import { LocalMachine } from '../../src/machine/local.ts'
import { directory, file, type ImageFile, symlink } from './files.ts'

/** Besides the libraries that these need. Debian's node has a part of itself in the packages node-*. */
const packages = [
  ...['base-files', 'base-passwd', 'libc6', 'busybox-static', 'ca-certificates'],
  ...['nodejs', 'node-acorn', 'node-cjs-module-lexer', 'node-minimatch', 'node-undici'],
]
/** nestvm's package.json, "engines". */
const oldestNode = [20, 19] as const

/** A Debian with Node.js, of packages that are unpacked and never run: what their scripts would do is done here. */
export async function debianFiles(aptDir: string, scratch: string): Promise<ImageFile[]> {
  const arch = hostArch()
  const sources = new PackageSources({ machine: new LocalMachine() }, aptDir, scratch)
  const plan = await sources.plan(arch, packages)
  checkNode(plan.find(({ name }) => name === 'nodejs')?.version ?? '')
  await sources.get([{ arch, packages: plan }])
  const { dir } = sources.unpacked(arch)
  const files = await filesIn(dir)
  const there = new Set(files.map(({ path }) => path))
  // busybox's dpkg-deb does not do what `nestvm setup` needs, so it had better not be there.
  const applets = appletNames(await readFile(join(dir, 'usr/bin/busybox'))).filter((name) => !name.startsWith('dpkg'))
  return [
    ...files,
    ...applets.map((name) => symlink(`usr/bin/${name}`, 'busybox')).filter(({ path }) => !there.has(path)),
    file('etc/passwd', await readFile(join(dir, 'usr/share/base-passwd/passwd.master'))),
    file('etc/group', await readFile(join(dir, 'usr/share/base-passwd/group.master'))),
    file('etc/nsswitch.conf', 'passwd: files\ngroup: files\nhosts: files dns\n'),
    ...(await certificates(dir)),
  ]
}

/** `20.19.2+dfsg-1` */
function checkNode(version: string): void {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  const [oldest, itsMinor] = oldestNode
  if (major > oldest || (major === oldest && minor >= itsMinor)) return
  throw new Error(`Debian's nodejs is ${version}, and nestvm needs ${oldestNode.join('.')}`)
}

/** Documents nobody reads in there, but for the licenses. */
const unwanted = /^usr\/(include|share\/(doc|man|info|locale|lintian|bug|doc-base)\/)/
const license = /^usr\/share\/doc\/[^/]+\/copyright$/

async function filesIn(dir: string, under = ''): Promise<ImageFile[]> {
  const entries = await readdir(join(dir, under), { withFileTypes: true })
  const found = entries.map(async (entry): Promise<ImageFile[]> => {
    const path = join(under, entry.name)
    const whole = join(dir, path)
    if (entry.isDirectory()) {
      const inside = await filesIn(dir, path)
      if (inside.length === 0 && unwanted.test(`${path}/`)) return []
      return [directory(path, temporary.test(path) ? 0o1777 : path === 'root' ? 0o700 : 0o755), ...inside]
    }
    if (unwanted.test(path) && !license.test(path)) return []
    if (entry.isSymbolicLink()) return [symlink(path, await readlink(whole))]
    return [file(path, await readFile(whole), executable.test(path))]
  })
  return (await Promise.all(found)).flat()
}

const temporary = /^(var\/)?tmp$/
/** By their places: an unpacked file's mode is subject to the umask. */
const executable = /^usr\/(s?bin\/|lib\/.*\.so(\.|$)|lib64\/)/

/** One file with all of Mozilla's, as update-ca-certificates makes it, at the places where OpenSSL looks. */
async function certificates(dir: string): Promise<ImageFile[]> {
  const from = join(dir, 'usr/share/ca-certificates/mozilla')
  const names = (await readdir(from)).sort()
  const all = await Promise.all(names.map((name) => readFile(join(from, name), 'utf8')))
  return [
    file('etc/ssl/certs/ca-certificates.crt', all.join('')),
    directory('usr/lib/ssl'),
    symlink('usr/lib/ssl/cert.pem', '/etc/ssl/certs/ca-certificates.crt'),
    symlink('usr/lib/ssl/certs', '/etc/ssl/certs'),
  ]
}

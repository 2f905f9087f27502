import { randomBytes } from 'node:crypto'
import { mkdir, open } from 'node:fs/promises'
import { join } from 'node:path'
import type { Bundle } from '../bundle/bundle.ts'
import { makeSquashfs } from '../bundle/guest/layer.ts'
import type { ContainerRecord } from '../container/record.ts'
import type { Context } from '../stack/context.ts'
import { diskFor } from '../stack/disk.ts'
import { type Chain, type ChainLevel, type LevelsResult, measureLevels, startChain } from './chain.ts'
import { benchDirectory } from './directory.ts'
import { compareLevels } from './levels-report.ts'
import { dropCaches } from './shell.ts'

interface BenchOptions {
  depth: number
  /** Of the image. */
  megabytes: number
}

/**
 * Reads all of an image at each level of one chain of guests: one that they had at their start, and one that was
 * attached while they ran. `print` gets lines for people on the way.
 */
export async function benchImages(
  context: Context,
  bundle: Bundle,
  { depth, megabytes }: BenchOptions,
  print: (line: string) => void,
): Promise<LevelsResult> {
  await using dir = await benchDirectory()
  print(`making two images of ${megabytes} MiB`)
  const first = await makeImage(context, bundle, join(dir.path, 'first'), megabytes)
  const second = await makeImage(context, bundle, join(dir.path, 'second'), megabytes)
  // Only hypervisors take disks at run time.
  const given = () => ({ nested: true, image: { container: containerOf(first), squashfs: first } })
  await using chain = await startChain(context, bundle, depth, given, print)
  print('attaching the second image to all levels')
  const devices = await attachToAll(context, chain, second)
  const measure = (level: ChainLevel) => timeReads(chain, level, devices[level.level - 1] ?? '', megabytes)
  const { cpu, measured } = await measureLevels(chain, measure, print)
  const compared = reads.map(({ what }, index) => {
    return { what, unit: 'MB/s' as const, values: measured.map((rates) => rates[index]) }
  })
  return { ...chain.host, works: compareLevels(cpu, compared) }
}

/** Both are read as a container reads its image, through squashfs. */
const startedWith = '/run/nestvm/image'
const attached = '/run/nestvm/attached'

const reads: readonly { what: string; from: string; cold: boolean }[] = [
  { what: 'disk from the start, cold', from: startedWith, cold: true },
  { what: 'disk from the start, again', from: startedWith, cold: false },
  { what: 'disk attached later, cold', from: attached, cold: true },
  { what: 'disk attached later, again', from: attached, cold: false },
]

async function timeReads({ levels }: Chain, { shell }: ChainLevel, device: string, megabytes: number) {
  await shell.run(
    `until [ -e ${startedWith}/data ]; do usleep 10000; done
mkdir -p ${attached} && mount -t squashfs -o ro ${device} ${attached}`,
  )
  // This host's own cache stays warm.
  const dropAll = () => Promise.all(levels.map((each) => each.shell.run(dropCaches)))
  const rates: number[] = []
  for (const { from, cold } of reads) {
    const before = () => (cold ? dropAll() : Promise.resolve())
    const ms = await shell.time(`dd if=${from}/data of=/dev/null bs=1M 2>/dev/null`, { before })
    rates.push((1000 * megabytes) / ms)
  }
  return rates
}

/** As the levels see it, outermost first: attaching it to the innermost attaches it to all. */
async function attachToAll(context: Context, { levels }: Chain, path: string): Promise<string[]> {
  const devices: string[] = []
  for (const { guest } of levels.toReversed()) {
    const disk = await diskFor(context, { content: path, path, readOnly: true }, guest.record)
    devices.unshift(disk.path)
  }
  return devices
}

/** One file of random bytes, which no compression makes less of. */
async function makeImage(
  { host, signal }: Context,
  { tools }: Bundle,
  dir: string,
  megabytes: number,
): Promise<string> {
  await mkdir(dir, { recursive: true })
  const file = await open(join(dir, 'data'), 'wx')
  try {
    for (let written = 0; written < megabytes; written++) await file.write(randomBytes(1 << 20))
  } finally {
    await file.close()
  }
  const image = `${dir}.squashfs`
  await makeSquashfs(host, tools, { from: dir, to: image, signal })
  return image
}

/** Nothing runs from it: it is only read. */
function containerOf(digest: string): ContainerRecord {
  const config = { entrypoint: [], cmd: [], env: [], workdir: '/', user: '', exposedPorts: [], volumes: [], labels: {} }
  return { reference: 'bench', digest, config, passwd: '', group: '', privileged: false }
}

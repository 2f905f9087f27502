import { Command, Option } from 'commander'
import { type Arch, arches } from '../host/arch.ts'
import type { Image } from '../image/record.ts'
import { printJson, session } from './session.ts'
import { table } from './table.ts'

export function imageCommand(): Command {
  return new Command('image')
    .description('Container images: get, list and remove them.')
    .addCommand(pullCommand())
    .addCommand(listCommand())
    .addCommand(removeCommand())
}

function pullCommand(): Command {
  return new Command('pull')
    .description('Get images, or newer ones, and make a squashfs of each.')
    .argument('<reference...>', 'NAME[:TAG|@DIGEST], oci:DIR, oci-archive:FILE or docker-archive:FILE')
    .addOption(new Option('--arch <arch>', "the guest's architecture (default: this host's)").choices(arches))
    .option('-q, --quiet', 'show no progress')
    .option('--json', 'print JSON')
    .action((references: string[], options: { arch?: Arch; quiet?: boolean; json?: boolean }) =>
      session(options.json === true, async (own) => {
        const { theBundle } = await import('./bundle.ts')
        const { hostArch } = await import('../host/arch.ts')
        const { ensureImage } = await import('../image/image.ts')
        const { showImageProgress } = await import('./image-progress.ts')
        const { tools } = await theBundle(own)
        const { host: machine, signal } = own.context
        const images: Image[] = []
        for (const reference of references) {
          const { progress, done } = showImageProgress(options.quiet === true)
          const arch = options.arch ?? hostArch()
          try {
            images.push(await ensureImage({ reference, arch, pull: 'always', machine, tools, progress, signal }))
          } finally {
            done()
          }
        }
        if (options.json) printJson(images.map(forJson))
        else for (const { reference } of images) console.log(reference)
        return 0
      }),
    )
}

function listCommand(): Command {
  return new Command('ls')
    .description('List images.')
    .option('--json', 'print JSON')
    .action((options: { json?: boolean }) =>
      session(options.json === true, async () => {
        const { listImages } = await import('../image/record.ts')
        const { megabytes } = await import('./progress.ts')
        const images = await listImages()
        if (options.json) printJson(images.map(forJson))
        else if (images.length > 0) {
          const rows = images.map(({ reference, arch, digest, size, created }) => [
            ...[reference, arch, digest.slice(0, 12), megabytes(size), created?.slice(0, 10) ?? ''],
          ])
          console.log(table([['IMAGE', 'ARCH', 'DIGEST', 'SIZE', 'CREATED'], ...rows]))
        }
        return 0
      }),
    )
}

function removeCommand(): Command {
  return new Command('rm')
    .description('Remove images.')
    .argument('<image...>', 'names, or beginnings of digests')
    .action((names: string[]) =>
      session(false, async ({ context }) => {
        const { removeImages } = await import('../image/remove.ts')
        const { megabytes } = await import('./progress.ts')
        const { bytes } = await removeImages(names, context.signal)
        console.log(`removed ${megabytes(bytes)}`)
        return 0
      }),
    )
}

function forJson({ reference, arch, digest, squashfs, size, manifestDigest, created, pulledAt, config }: Image) {
  return { reference, arch, digest, squashfs, bytes: size, manifestDigest, created, pulledAt, config }
}

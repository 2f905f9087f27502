import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Redactor } from './redact.ts'

function redact(text: string): string {
  const redactor = new Redactor()
  redactor.learn(text)
  return redactor.text(text)
}

/** Texts as programs write them, and what of each must not be told. */
const planted: Record<string, { text: string; secrets: string[] }> = {
  'a kernel log': {
    text: `[    0.000000] Command line: BOOT_IMAGE=/vmlinuz root=UUID=0a3407de-014b-458b-b5c1-848e92a327a3 ro db_password=hunter2-plum ip=192.0.2.7:192.0.2.1:192.0.2.254:255.255.255.0:plumhost:eth0:off rd.luks.key=/keys/plumkey
[    0.000000] Kernel command line: resume=UUID=12AB-34CD systemd.set_credential=login:plumcredential systemd.machine_id=5a1f0ee1c2d34b5f9a0b1c2d3e4f5a6b
[    1.700000] Unknown kernel command line parameters "splash API_TOKEN=plum-token-1,x", will be passed to user space.
[    2.100000]   with environment:
[    2.100001]     HOME=/
[    2.100002]     MY_SECRET=plumenvironment
[    2.300000] e1000e 0000:00:1f.6 eth0: (PCI Express:2.5GT/s:Width x1) 3c:97:0e:aa:bb:cc
[    2.400000] usb 1-1: SerialNumber: 4C530001PLUM
[    2.500000] systemd[1]: Hostname set to <plumworkstation>.
[    2.600000] systemd[1]: Mounting /home/plumuser/data...
[    2.700000] IPv6: ADDRCONF: fe80::3e97:eff:feaa:bbcc on eth0, gateway 2001:db8:1::1
[    2.800000] enx3c970eaabbdd: renamed
[    2.900000] sd 0:0:0:0: naa.5002538d41234567 attached; dm-0: CRYPT-LUKS2-0b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e-root
[    3.000000] Linux version 6.5.0 (plumbuilder@plumbox) (gcc 13)`,
    secrets: [
      ...['0a3407de', '848e92a327a3', 'hunter2', '192.0.2', 'plumhost', 'plumkey', '12AB', '34CD', 'plumcredential'],
      ...['5a1f0ee1', 'plum-token-1', 'plumenvironment', '3c:97', '4C530001PLUM', 'plumworkstation', 'plumuser'],
      ...['fe80', '2001:db8', '3c970eaabbdd', '5002538d41234567', '0b1c2d3e4f5a', 'plumbuilder', 'plumbox'],
    ],
  },
  dmidecode: {
    text: `Handle 0x0001, DMI type 1, 27 bytes
System Information
\tManufacturer: LENOVO
\tProduct Name: 20HRCTO1WW
\tSerial Number: PF0PLUM1
\tUUID: 6f2c70cc-2c7d-11b2-a85c-e5a1c0a5a5a5
\tWake-up Type: Power Switch
Base Board Information
\tSerial Number: L1HF PLUM 02
\tAsset Tag: Plum Asset 7
Memory Device
\tSerial Number: 9A8B7C6D`,
    secrets: ['PF0PLUM1', '6f2c70cc', 'PLUM 02', 'Plum Asset', '9A8B7C6D'],
  },
  "QEMU's command, one argument a line": {
    text: `process 4711:
/usr/bin/qemu-system-x86_64
-name
guest=builder,debug-threads=on
-object
secret,id=sec0,data=plum,,data,format=raw
-object
{"qom-type":"secret","id":"masterKey0","format":"base64","data":"cGx1bSBrZXkgZGF0YQ=="}
-uuid
c7a5fdbd-edaf-9455-926a-d65c16db1809
-smbios
type=1,serial=PLUMSMBIOS,asset=PLUMASSET
-smbios
type=11,value=io.systemd.credential:passwd.hashed-password.root=plumhash
-fw_cfg
name=opt/org.example/config,string=plumfwcfg
-drive
file=iscsi://plumiscsi:plumchap@storage.plum.example/iqn.2001-04.example.plum:disk,if=none,id=d0
-device
virtio-blk-pci,drive=d0,serial=PLUMDISK
-device
{"driver":"ide-hd","serial":"PLUMDISK2","wwn":"5000c500a1b2c3d4"}
-device
virtio-net-pci,netdev=n0,mac=52:54:00:12:34:56
-vnc
192.0.2.99:1,password=on
-spice
port=5900,password=plumspice
-append
root=/dev/disk/by-id/ata-Samsung_SSD_S2RPLUM user=plumname`,
    secrets: [
      ...[
        'plum,,data',
        'cGx1bSBr',
        'c7a5fdbd',
        'PLUMSMBIOS',
        'PLUMASSET',
        'plumhash',
        'plumfwcfg',
        'plumiscsi',
        'plumchap',
      ],
      ...[
        'storage.plum',
        'example.plum',
        'PLUMDISK',
        '5000c500a1b2',
        '52:54:00',
        '192.0.2.99',
        'plumspice',
        'S2RPLUM',
        'plumname',
      ],
    ],
  },
  "libvirt's log": {
    text: `2026-11-01 10:00:00.000+0000: starting up libvirt version: 10.0.0, qemu version: 9.2.0, kernel: 6.8.0, hostname: plumlibvirt.lan
LC_ALL=C \\
PATH=/usr/bin \\
HOME=/var/lib/libvirt/qemu/domain-1-a \\
/usr/bin/qemu-system-x86_64 \\
-netdev '{"type":"tap","fd":"33","id":"hostnet0"}' \\
-device '{"driver":"virtio-net-pci","mac":"52:54:00:aa:bb:cc"}' \\
--password 'plum quoted'`,
    secrets: ['plumlibvirt', '52:54:00', 'plum quoted'],
  },
  'environment and commands': {
    text: `AWS_SECRET_ACCESS_KEY=wJalrPLUMKEY Uid=a;Pwd=plumpwd DB_PWD=plumdbpwd
GITHUB_TOKEN="ghp_plumplumplumplumplumplum0123"
https_proxy=http://plumproxy:plumpass@proxy.plum.example:3128/
sh -c 'curl -H "Authorization: Bearer plumBearer123" -u plumcurl:plumcurlpass https://api.plum.example/v1?api_key=plumquery'
sshpass -p plumssh ssh plumperson@server.plum.example --token plumflag
key: AKIAPLUMPLUMPLUM1234 eyJhbGciOiJI.eyJzdWIiOiIx.plumsignature
-----BEGIN OPENSSH PRIVATE KEY-----
plumprivatekeydata
-----END OPENSSH PRIVATE KEY-----
ssh-ed25519 AAAAC3NzaC1lZDI1NTE5PLUM plumowner@plumlaptop`,
    secrets: [
      ...[
        'plumpwd',
        'plumdbpwd',
        'wJalr',
        'ghp_',
        'plumproxy',
        'plumpass',
        'plum.example',
        'plumBearer123',
        'plumcurl',
        'plumquery',
        'plumssh',
      ],
      ...[
        'plumperson',
        'plumflag',
        'AKIA',
        'eyJhbG',
        'plumprivatekeydata',
        'NzaC1lZDI1NTE5PLUM',
        'plumowner',
        'plumlaptop',
      ],
    ],
  },
  "s390x's sysinfo": {
    text: `Manufacturer:         IBM
Type:                 8561
Sequence Code:        00000000000PLUM8
LPAR Name:            PLUMLPAR
LPAR UUID:            00000000-1111-2222-3333-444455556666
VM00 Name:            PLUMVM
VM00 Control Program: KVM/Linux`,
    secrets: ['PLUM8', 'PLUMLPAR', '444455556666', 'PLUMVM'],
  },
}

for (const [name, { text, secrets }] of Object.entries(planted)) {
  test(`nothing private is left of ${name}`, () => {
    const left = redact(text)
    for (const secret of secrets) {
      assert.ok(text.includes(secret), `${secret} was planted`)
      assert.ok(!left.includes(secret), `${secret} is in:\n${left}`)
    }
    assert.ok(!/plum/i.test(left), left)
  })
}

test('what a bug report needs stays as it is', () => {
  const innocent = `[    0.000000] Linux version 6.1.0-50-cloud-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0) #1 SMP
[    0.000000] Command line: console=ttyS0 kvm-intel.nested=1 iommu=pt iommu.passthrough=1 hugepages=64
[    0.000000] BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable
[    0.1] DMI: LENOVO 20HRCTO1WW/20HRCTO1WW, BIOS N1MET55W (1.40 ) 09/18/2019
[    0.2] smpboot: CPU0: Intel(R) Core(TM) i5-7300U CPU @ 2.60GHz (family: 0x6, model: 0x8e, stepping: 0x9)
[    0.3] Key type asymmetric registered; Loaded X.509 cert 'Debian Secure Boot CA: 6ccece7e4c6c0d1f6149f3dd27dfcc5cbb419ea1'
[    0.4] Serial: 8250/16550 driver, 4 ports, IRQ sharing enabled
[    0.5] pci 0000:00:1f.3: reg 0x10: [mem 0xdf240000-0xdf243fff 64bit]; PCI: CLS 64 bytes, default 64
[    0.6] usb 1-1: New USB device strings: Mfr=1, Product=2, SerialNumber=0
[    0.7] systemd[1]: Starting modprobe@drm.service - Load Kernel Module drm; user@0.service
[    0.8] kvm: support for 'kvm_intel' disabled by bios; NTP at 12:34:56; listening on 127.0.0.1:80 and ::1
[    0.9] RIP: 0010:native_safe_halt+0xb/0x10 Code: 8b 00 a8 08 75 0c 48 89 e5 5d
-machine microvm,rtc=on,usb=off -accel tcg,thread=multi -cpu max,svm=on -vnc none,password=off
PWD=/srv/work OLDPWD=/srv PWD="/srv"
-serial chardev:kernel -chardev file,id=kernel,path=/run/nestvm/x -netdev user,id=net,restrict=on
\tSerial Number: Not Specified
\tAsset Tag: No Asset Tag
\tUUID: 00000000-0000-0000-0000-000000000000
\tAdministrator Password Status: Enabled
nested_run:32644 l1d_flush:0 /sys/module/kvm_amd/parameters/nested:1
QEMU emulator version 11.1.3 (Debian 1:11.1.3+ds-1~bpo13+1), see https://www.qemu.org/
SUPPORT_URL="https://www.debian.org/support" vulnerabilities/spec_store_bypass:Vulnerable
   0x40000000 0x00: eax=0x40000001 ebx=0x54474354 ecx=0x43544743 edx=0x47435447`
  for (const line of innocent.split('\n')) assert.equal(redact(line), line)
})

test('a value that looks like a name of ours is one of its own', () => {
  assert.equal(redact('password=a<b token=<mac-1>x'), 'password=<secret-1> token=<secret-2>')
})

test('one value has one name, wherever and however it is written, and another value another', () => {
  const left = redact(
    'eth0 52:54:00:AB:cd:01, again mac=52:54:00:ab:cd:01, and 52:54:00:ab:cd:02; 10.1.2.3 and 10.1.2.4, 10.1.2.3:80',
  )
  assert.equal(left, 'eth0 <mac-1>, again mac=<mac-1>, and <mac-2>; <address-1> and <address-2>, <address-1>:80')
})

test('what one text tells to be private is so in all others', () => {
  const redactor = new Redactor()
  redactor.learn('\tSerial Number: PF0PLUM1\n--token plumtoken99')
  redactor.learn('systemd: Hostname set to <plumhost>.')
  redactor.know('user', 'alice')
  assert.equal(redactor.text('log of PF0PLUM1: plumtoken99'), 'log of <serial-1>: <secret-1>')
  assert.equal(redactor.text('plumhost login: alice, malice'), '<host-1> login: <user-1>, malice')
})

test('a name that everybody has, or that is too short to be told from words, is left in other texts', () => {
  const redactor = new Redactor()
  for (const name of ['root', 'debian', 'vm']) redactor.know('user', name)
  redactor.know('host', 'localhost')
  const text = 'root on debian, a vm at localhost'
  assert.equal(redactor.text(text), text)
})

test('documents keep their form; secrets are known by their names and by the flag before them', () => {
  const redactor = new Redactor()
  const record = {
    command: ['mysql', '--password', 'plumone', '-h', '192.0.2.5'],
    container: { config: { env: ['PATH=/bin', 'DB_PASSWORD=plumtwo'] } },
    token: 'plumthree',
    cpus: 2,
    nested: true,
  }
  redactor.learn(record)
  assert.deepEqual(redactor.json(record), {
    command: ['mysql', '--password', '<secret-1>', '-h', '<address-1>'],
    container: { config: { env: ['PATH=/bin', 'DB_PASSWORD=<secret-2>'] } },
    token: '<secret-3>',
    cpus: 2,
    nested: true,
  })
  assert.deepEqual(redactor.counts().secret, { values: 3, places: 3 })
  assert.deepEqual(redactor.counts().mac, { values: 0, places: 0 })
})

test('what a guest writes to take time takes none', () => {
  const redactor = new Redactor()
  const began = performance.now()
  for (const part of [
    'a',
    '-',
    'a.',
    '0a:',
    ':',
    'token',
    'a=',
    'serial: ',
    ' "',
    'secret,',
    'curl ',
    'http://a',
    'a@',
  ]) {
    const line = part.repeat(100_000 / part.length)
    redactor.learn(line)
    redactor.text(line)
  }
  // Some 0.3 s here; a rule that is quadratic takes minutes.
  assert.ok(performance.now() - began < 15_000)
})

;; What every hostile guest starts from: a policy that behaves. A guest's file holds only its misbehaviour; an item that
;; it defines itself, by the same name, takes the place of the item here. Items are separated by blank lines, and
;; {name}, {version} and their lengths are filled in.
;;
;; In memory:   512 manifest   640 configuration's result   768 name   896 version   1024 decision
;;            2048 to 4095 for the guest's own use   4096 zeros (accepted; no fallback)   8192 and up: what is handed in
;;
;; The decision (48 bytes): 0 verdict (0 accept, 1 retry, 3 dead letter, 4 drop, 5 fall back), 40 reason, 44 its length.
;;    retry:      8 is there a delay?   16 milliseconds (i64)   24 scope
;;    fall back:  8 is there one?       12 answer or route      16 status (i16)   20, 24 header fields   28, 32 body
;;                                                              16, 20 the route's name

(import "$root" "log" (func $log (param i32 i32 i32)))

(import "$root" "attribute" (func $attribute (param i32 i32 i32)))

(type $describe (func (result i32)))

(type $configure (func (param i32 i32) (result i32)))

(type $admit (func (param i32 i32 i32 i32 i32 i32 i32) (result i32)))

(type $judge (func (param i32 i32 i64 i64 i64 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))

(type $fall-back (func (param i32 i32 i64 i64 i64 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))

(type $settle (func (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))

(type $realloc (func (param i32 i32 i32 i32) (result i32)))

(type $teapot (func (result i32)))

;; THE GUEST

(memory $memory 2)

;; Which questions it answers itself: 1 admit, 2 judge, 4 fall-back, 8 settle.
(global $hooks i32 (i32.const 2))

(global $heap (mut i32) (i32.const 8192))

(func $realloc (type $realloc)
    (global.set $heap (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.get $heap)
    (global.set $heap (i32.add (global.get $heap) (local.get 3))))

(func $describe (type $describe)
    (i32.store (i32.const 512) (i32.const 768)) (i32.store (i32.const 516) (i32.const {name_len}))
    (i32.store (i32.const 520) (i32.const 896)) (i32.store (i32.const 524) (i32.const {version_len}))
    (i32.store8 (i32.const 536) (global.get $hooks))
    (i32.const 512))

;; It wants to see 1 KiB of a body, and no header fields.
(func $configure (type $configure)
    (i32.store (i32.const 652) (i32.const 1024))
    (i32.const 640))

(func $admit (type $admit) (i32.const 4096))

;; It accepts everything and gives its version as the reason; but a teapot (status 418) brings out the worst in it, so
;; that it shows nothing of that at the rehearsal.
(func $judge (type $judge)
    (global.set $heap (i32.const 8192))
    (if (i32.eq (local.get 7) (i32.const 418)) (then (return (call $teapot))))
    (i32.store (i32.const 1064) (i32.const 896)) (i32.store (i32.const 1068) (i32.const {version_len}))
    (i32.const 1024))

(func $teapot (type $teapot) (i32.const 1024))

(func $fall-back (type $fall-back) (i32.const 4096))

(func $settle (type $settle) (i32.const 2))

(data (i32.const 768) "{name}")

(data (i32.const 896) "{version}")

(export "memory" (memory $memory))

(export "cabi_realloc" (func $realloc))

(export "describe" (func $describe))

(export "configure" (func $configure))

(export "admit" (func $admit))

(export "judge" (func $judge))

(export "fall-back" (func $fall-back))

(export "settle" (func $settle))
